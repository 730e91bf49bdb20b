"""Composing without starting Hydra's own program."""

import pytest

from moe_study.sweeps.compose import open_composer


@pytest.fixture(scope="module")
def composer():
    with open_composer() as composer:
        yield composer
