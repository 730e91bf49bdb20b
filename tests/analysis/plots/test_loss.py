"""Losses over training against a reference's; the pictures themselves are in test_all.py."""

import math

import numpy as np
import pandas as pd

from moe_study.analysis.plots.loss import minus_reference


def test_differences_over_training_are_paired_by_seed_and_tokens_whatever_the_batch():
    """The reference logs every 100 tokens and ends at 400; the other every 150, on another line for each seed."""

    def curve(label: str, seed: int, tokens: list[int], loss: list[float]) -> pd.DataFrame:
        steps = range(1, len(tokens) + 1)
        return pd.DataFrame({"label": label, "seed": seed, "step": steps, "tokens": tokens, "loss": loss})

    reference = [curve("a", seed, [100, 200, 300, 400], [4 + seed, 3 + seed, 2.5, math.nan]) for seed in (0, 1)]
    other = [curve("b", seed, [150, 300, 450], [3.0, 3.0, 3.0]) for seed in (0, 1, 2)]
    long = pd.concat([*other, *reference])
    gap_L = minus_reference(long, "a")
    by_hand = [3 - 3.5, 3 - 2.5, math.nan, 3 - 4.5, 3 - 2.5, math.nan, *[math.nan] * 3, *[0, 0, 0, math.nan] * 2]
    np.testing.assert_allclose(gap_L, by_hand)
