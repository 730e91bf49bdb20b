"""results/NAME/lazy*: what findings of runs say is kept, and suffices for its text."""

import math

import pandas as pd
import pytest

from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import read_archive
from moe_study.analysis.results.lazy import DROPS, EXPERTS, lazy_text
from moe_study.analysis.results.measure import Kept
from moe_study.analysis.results.overview import overview
from moe_study.analysis.specialisation.lazy import DROP_COLUMNS, EXPERT_COLUMNS
from moe_study.runs.findings import write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, record_launch
from moe_study.runs.traces import TraceIdentity
from moe_study.sweeps.claims import Claims
from tests.analysis import planted
from tests.analysis.results.launched import keep_unpictured

CLAIMS = Claims("a paper", (13,))
NO_SLOTS = (math.nan, math.nan)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A point with one lazy expert of two in both seeds, and one of which nothing was asked."""
    root, out = tmp_path_factory.mktemp("kept") / "runs", tmp_path_factory.mktemp("results")
    folders = planted.plant(root, (planted.SEQUENCE_2, planted.TOKEN_2), (0.0, -0.1), seeds=(0, 1))
    for folder in map(RunFolder, folders[:2]):
        identity = TraceIdentity(folder.key, None, "validation", "a" * 64)
        experts = [(0, 0, 2, 0.975, 1.95, 1.95, *NO_SLOTS), (0, 1, 2, 0.025, 0.05, 0.05, *NO_SLOTS)]
        drops = [("none", 0, -1, 0.1, 0.0, 4.0, 0.0), ("lazy", 1, -1, 0.1, 0.025, 4.002, 0.002)]
        for name, rows, columns in ((EXPERTS, experts, EXPERT_COLUMNS), (DROPS, drops, DROP_COLUMNS)):
            table = pd.DataFrame(rows, columns=list(columns))
            write_finding(folder.findings_folder, identity, name, table, {})
    record_launch(root, "mine", Launch((), tuple(folder.name for folder in folders)))
    keep_unpictured(root, "mine", out, CLAIMS)
    return out


def test_what_was_found_is_kept_and_suffices_for_its_text(out):
    kept = Kept(pd.read_parquet(out / "mine" / "lazy.parquet"), read_archive(out / "mine").study())
    text = (out / "mine" / "lazy.md").read_text()
    assert lazy_text(kept) == text and kept.rows.groupby("table").size().to_dict() == {DROPS: 4, EXPERTS: 4}
    assert "Lazy is below 0.1 of an even share" in text
    row = next(line for line in text.splitlines() if line.startswith("| sequence top-2 †"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == [
        "1.0 [1.0, 1.0] of 2", "0.05 [0.05, 0.05]", "1.95 [1.95, 1.95]", "+0.002 [+0.002, +0.002]"
    ]  # fmt: skip
    assert "token top-2" not in text


def test_the_overview_says_how_many_are_lazy(out, tmp_path):
    (tmp_path / "questions.yaml").write_text('13: {asks: "How many are lazy?", read: {mine: [lazy]}}')
    text = overview([answered(read_archive(out / "mine"), CLAIMS)], tmp_path / "questions.yaml", {})
    assert "  - sequence top-2 †: 1.0 [1.0, 1.0] of 2 experts are lazy" in text
    assert "([lazy experts](mine/lazy.md))" in text
