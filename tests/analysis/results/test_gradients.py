"""results/NAME/gradients.*: ratios are paired by seed, files hold all that their text says, committed ones do, too."""

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.results import keep as module
from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import read_archive
from moe_study.analysis.results.gradients import FINISHED, TRAINING, gradient_rows, gradients_text, sentences
from moe_study.analysis.results.measure import Kept
from moe_study.analysis.results.overview import overview
from moe_study.analysis.study import read_study
from moe_study.cli import main
from moe_study.runs.findings import write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import rows_of
from moe_study.runs.members import Launch, PlannedComparison, record_launch
from moe_study.runs.traces import TraceIdentity
from moe_study.sweeps.claims import Claim, Claims
from tests.analysis import planted
from tests.analysis.results.launched import keep_unpictured

CLAIMS = Claims("a paper", (7,), (Claim("the two", "the one", "Two or one?"), Claim("the two", "the dense", "Better?")))
LEVELS = (1.0, 1.5, 4.0)  # of seeds: shared by all points, so that pairs have none of it


def norms(level, place):
    """Records of point `place` (0 the dense one, then one pick and two) at one step."""
    yield {"kind": "gradients", "step": 400, "embeddings": level}
    if place:
        each = [level * 2.0, 0.0] if place == 1 else [level, level]
        own = {"router": level * place, "experts": float(np.hypot(*each)), "by_expert": each}
        yield {"kind": "gradients", "step": 400, "layer": 0, **own}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three points by three seeds with norms from training, and one run with those of its finished model, too."""
    root = tmp_path_factory.mktemp("kept") / "runs"
    routings = (planted.DENSE_1X, planted.TOKEN_1, planted.TOKEN_2)
    folders = planted.plant(root, routings, (0.0, -0.1, -0.2), seeds=range(3))
    for number, folder in enumerate(folders):
        place, seed = divmod(number, 3)
        RunFolder(folder).append_metrics(*norms(LEVELS[seed], place))
    last = RunFolder(folders[-1])
    table = rows_of(norms(7.0, 2)).assign(mean_gradient=1.0, agreement=0.25)
    write_finding(
        last.findings_folder, TraceIdentity(last.key, None, "validation-batches", "f" * 64), "gradients", table, {}
    )
    keys = [folder.name for folder in folders]
    dense, one, two = (tuple(keys[first : first + 3]) for first in (0, 3, 6))
    comparisons = (
        PlannedComparison("the two", "the one", two, one, "Two or one?"),
        PlannedComparison("the two", "the dense", two, dense, "Better?"),
    )
    record_launch(root, "mine", Launch((), tuple(keys), comparisons, {key: key for key in keys}))
    return root


@pytest.fixture(scope="module")
def out(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    keep_unpictured(runs, "mine", folder, CLAIMS, drawn="gradients")
    return folder


def test_ratios_are_paired_by_seed(out):
    text = (out / "mine" / "gradients.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| token top-2 over token top-1"))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    one, half_root = "1.00 [1.00, 1.00]", f"{2**-0.5:.2f}"
    assert cells == [one, "2.00 [2.00, 2.00]", f"{half_root} [{half_root}, {half_root}]", "0.50 [0.50, 0.50]"]
    assert "| token top-2 over dense 1x | 1.00 [1.00, 1.00] |  |  |  |" in text


def test_what_training_recorded_and_what_was_measured_afterwards_stand_apart(out):
    rows = pd.read_parquet(out / "mine" / "gradients.parquet")
    assert rows.groupby("of")["key"].nunique().to_dict() == {TRAINING: 9, FINISHED: 1}
    text = (out / "mine" / "gradients.md").read_text()
    trained, _, finished = text.partition("## Of finished models")
    assert "agreement" not in trained and "| agreement | embeddings | router | experts |" in finished
    assert (
        "| token top-2 | 0.250 | 0.250 | 0.250 |" in finished
        and "| token top-2 | 7.00 | 14.0 | 9.90 | 7.00 |" in finished
    )


def test_points_without_norms_are_named(out):
    trained, finished = (out / "mine" / "gradients.md").read_text().split("## ")[1:]
    assert "Not measured" not in trained
    assert finished.rstrip().endswith("Not measured: token top-1; dense 1x.")


def test_the_files_suffice_for_their_text_and_the_overview_says_it(out, tmp_path):
    archive = read_archive(out / "mine")
    rows = pd.read_parquet(out / "mine" / "gradients.parquet")
    kept = Kept(rows, archive.study())
    assert gradients_text(kept) == (out / "mine" / "gradients.md").read_text()
    assert (out / "mine" / "gradients.png").exists()
    said = list(sentences(kept))
    assert said == [
        "Norm of the router's gradient in training (second half), as a ratio: 2.00 [2.00, 2.00] in token top-2 over"
        " token top-1",
        "Norm of one expert's gradient in training (second half), as a ratio: 0.50 [0.50, 0.50] in token top-2 over"
        " token top-1",
    ]
    (tmp_path / "questions.yaml").write_text('7: {asks: "Why?", read: {mine: [gradients]}}')
    text = overview([answered(archive, CLAIMS)], tmp_path / "questions.yaml", {})
    assert f"  - [gradient norms by part of the model](mine/gradients.md)\n       - {said[0]}" in text


def test_a_gradient_that_vanishes_is_said_as_zero(runs):
    study = read_study([runs], "mine")
    rows = gradient_rows(study)
    rows.loc[(rows["part"] == "router") & (rows["label"] == "token top-1"), "norm"] = 0.0
    text = gradients_text(Kept(rows[rows["of"] == TRAINING], study))
    assert "| token top-1 | 1.82" in text and "] | 0 | " in text
    ratios = next(line for line in text.splitlines() if line.startswith("| token top-2 over token top-1"))
    assert ratios.split("|")[3].strip() == ""


def test_a_sweep_without_norms_says_how_to_have_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_pictures", lambda part, out: iter(()))
    folders = planted.plant(tmp_path / "runs", (planted.DENSE_1X,), (0.0,))
    record_launch(tmp_path / "runs", "first_look", Launch((), tuple(folder.name for folder in folders)))
    assert main(["results", str(tmp_path / "runs"), "--sweep", "first_look", "--out", str(tmp_path / "out")]) == 0
    (sentence,) = [line for line in capsys.readouterr().out.splitlines() if "gradient norms" in line]
    assert sentence.startswith(
        "first_look has no gradient norms by part: training records them (log.gradients_every=50)"
    )
    assert not list((tmp_path / "out").rglob("gradients.*"))
