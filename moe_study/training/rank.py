"""Which of the processes of one run this is, as torchrun says it in the environment. No torch is imported for it."""

import os


def rank_of_environment() -> int:
    """From 0; rank 0 alone writes to the run's folder."""
    return int(os.environ.get("RANK", 0)) if size_of_environment() > 1 else 0


def size_of_environment() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))
