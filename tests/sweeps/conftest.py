"""Composing and planning without starting Hydra's own program."""

import pytest

from moe_study.sweeps.compose import open_composer
from moe_study.sweeps.plan import plan_command


@pytest.fixture(scope="session")
def composer():
    """One for all tests, since reading the files of a choice of groups takes it a tenth of a second."""
    with open_composer() as composer:
        yield composer


@pytest.fixture
def plan(request, composer, tmp_path):
    """A function from what follows the module's GRID in a sweep file, and more of a command line, to the plan."""

    def make(text, *arguments, grid=request.module.GRID):
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        (tmp_path / "sweeps" / "mine.yaml").write_text(grid + text)
        return plan_command(composer, ["+sweep=mine", *arguments, f"log.runs_dir={tmp_path / 'runs'}"], tmp_path)

    return make
