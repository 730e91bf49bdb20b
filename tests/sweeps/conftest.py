"""Composing without starting Hydra's own program."""

import pytest

from moe_study.sweeps.compose import open_composer


@pytest.fixture(scope="session")
def composer():
    """One for all tests, since reading the files of a choice of groups takes it a tenth of a second."""
    with open_composer() as composer:
        yield composer
