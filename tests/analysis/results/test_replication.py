"""The same comparisons from other seeds: what agrees, what is decided once, what contradicts, and what is refused."""

import dataclasses
import json
import shutil

import pytest

from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import MANIFEST, archives, read_archive
from moe_study.analysis.results.overview import overview
from moe_study.analysis.results.replication import (
    FOLDER,
    TEXT,
    Agreement,
    Twice,
    keep_replication,
    replication_text,
    summary,
)
from moe_study.analysis.results.verdicts import findings
from moe_study.errors import DataError, StudyError
from moe_study.runs.members import Launch, record_launch
from moe_study.sweeps.claims import Claim, Claims, Expected
from tests.analysis import planted
from tests.analysis.results.launched import SWEEP, keep_unpictured, launch

CLAIMS = Claims(
    "a paper, Table 1",
    (),
    (
        Claim("two", "dense", "Are two better?", "yes", Expected.LOWER),
        Claim("frozen", "two", "Frozen?"),
        Claim("sequence", "one", "Which unit?"),
    ),
)
AGAIN = (*planted.EFFECTS[:5], -0.02)  # the sequence router, last, is worse than one expert here


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    keep_unpictured(launch(folder / "runs", CLAIMS), SWEEP, folder / "results", CLAIMS)
    again = launch(folder / "again", CLAIMS, seeds=range(5, 10), effects=AGAIN, overrides=["run.seed=5,6,7,8,9"], rng=1)
    keep_replication(again, SWEEP, folder / "results", CLAIMS)
    return folder / "results"


def test_other_seeds_stand_beside_the_first_and_are_no_sweep_of_their_own(out):
    assert [archive.name for archive in archives(out)] == [SWEEP]
    assert {path.name for path in (out / SWEEP / FOLDER).iterdir()} == {"runs.parquet", MANIFEST, TEXT}
    manifest = json.loads((out / SWEEP / FOLDER / MANIFEST).read_text())
    assert manifest["replicates"] == SWEEP
    assert manifest["command"] == "python train.py -m +sweep=mine/own scale=cpu run.seed=5,6,7,8,9"


def test_the_text_says_what_agrees_and_what_contradicts_and_is_computed_anew(out):
    text = (out / SWEEP / FOLDER / TEXT).read_text()
    assert text == replication_text(read_archive(out / SWEEP), read_archive(out / SWEEP / FOLDER), CLAIMS)
    assert (
        "2 of 3 verdicts agree; where not, contradicted: sequence top-2 † − token top-1 (lower, then higher)." in text
    )
    assert "| Are two better? | token top-2 − dense 1x | holds | -0.1" in text and "| holds | -0.1" in text
    assert "seeds 0, 1, 2, 3, 4, then seeds 5, 6, 7, 8, 9" in text
    assert "run.seed=5,6,7,8,9 log.runs_dir=runs_again\n    moe-study results runs_again --sweep mine/own@cpu" in text


def test_the_overview_has_a_line_for_each_sweep_that_was_run_again(out):
    text = overview([answered(archive, CLAIMS) for archive in archives(out)], None, {})
    assert "All together: 2 of 3 verdicts agree, 1 contradicted." in text
    assert f"- [{SWEEP}]({SWEEP}/replication/replication.md), seeds 5, 6, 7, 8, 9: 2 of 3 verdicts agree; where" in text


@pytest.mark.long
def test_a_first_result_that_is_written_again_keeps_what_stands_beside_it(out, tmp_path):
    keep_unpictured(launch(tmp_path / "runs", CLAIMS), SWEEP, out, CLAIMS)
    (one,) = [answered(archive, CLAIMS) for archive in archives(out)]
    assert one.replication is not None and len(one.replication.pairs) == 3


def test_runs_of_another_sweep_are_no_replication(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    manifest = tmp_path / "out" / SWEEP / FOLDER / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"sweep": "{SWEEP}"', '"sweep": "other"'))
    (first,) = archives(tmp_path / "out")
    with pytest.raises(DataError, match="replication holds runs of other; move it"):
        answered(first, CLAIMS)


def test_seeds_of_the_first_result_are_refused_in_one_sentence(out, tmp_path):
    runs = launch(tmp_path / "runs", CLAIMS, seeds=(4, 5))
    before = (out / SWEEP / FOLDER / TEXT).read_bytes()
    with pytest.raises(StudyError, match=r"seed 4 in .* first result of mine/own@cpu") as caught:
        keep_replication(runs, SWEEP, out, CLAIMS)
    assert "run.seed=5,6,7,8,9 log.runs_dir=runs_again" in str(caught.value) and "\n" not in str(caught.value)
    assert (out / SWEEP / FOLDER / TEXT).read_bytes() == before


def test_without_a_first_result_there_is_nothing_to_compare_with(tmp_path):
    runs = launch(tmp_path / "runs", CLAIMS, seeds=(5, 6))
    with pytest.raises(StudyError, match="has no first result to compare with; run moe-study results"):
        keep_replication(runs, SWEEP, tmp_path / "results", CLAIMS)


def test_runs_of_which_none_is_done_are_refused(out, tmp_path):
    record_launch(tmp_path / "runs", SWEEP, Launch((), ("0" * 16,), (), {"0" * 16: "a"}))
    with pytest.raises(StudyError, match="is done yet, so there is nothing to compare with the first"):
        keep_replication(tmp_path / "runs", SWEEP, out, CLAIMS)


def test_other_data_or_machines_are_named(out):
    first, again = read_archive(out / SWEEP), read_archive(out / SWEEP / FOLDER)
    other = dataclasses.replace(again, manifest={**again.manifest, "data": {"planted": "other"}, "torch": ["9"]})
    assert "so do data and PyTorch" in replication_text(first, other, CLAIMS)
    assert "Not only the seeds differ" not in replication_text(first, again, CLAIMS)


# Pairs of verdicts --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finding(out):
    """A function from a mean, whether it is decided, and a claim, to a finding with a half-width of 0.005."""
    (first, *_) = findings(read_archive(out / SWEEP).study(), CLAIMS)

    def make(mean, decided=True, expect=None, margin=0.02, same=False):
        of = {name: dataclasses.replace(getattr(first.tested, name), mean=mean, low=mean - 0.005, high=mean + 0.005)
              for name in ("difference", "interval", "same_interval")}  # fmt: skip
        p, p_same = (0.001 if decided and not same else 0.9), (0.001 if decided and same else 0.9)
        tested = dataclasses.replace(first.tested, **of, margin=margin, p=p, p_same=p_same)
        return dataclasses.replace(first, claim=dataclasses.replace(first.claim, expect=expect), tested=tested)

    return make


@pytest.mark.parametrize(
    ("one", "other", "agreement"),
    [
        ({"mean": -0.1}, {"mean": -0.05}, Agreement.AGREE),
        ({"mean": -0.1}, {"mean": 0.1}, Agreement.CONTRADICT),
        ({"mean": -0.1}, {"mean": -0.1, "decided": False}, Agreement.ONE_DECIDES),
        ({"mean": 0.1, "decided": False}, {"mean": -0.1, "decided": False}, Agreement.BOTH_OPEN),
        ({"mean": -0.01}, {"mean": 0.0, "same": True}, Agreement.AGREE),  # lower by less than the margin
        ({"mean": -0.01}, {"mean": 0.01}, Agreement.AGREE),  # nothing that matters, either way
        ({"mean": -0.03}, {"mean": 0.0, "same": True}, Agreement.CONTRADICT),
        ({"mean": -0.01, "expect": Expected.LOWER}, {"mean": 0.0, "same": True, "expect": Expected.LOWER},
         Agreement.CONTRADICT),
        ({"mean": -0.01, "expect": Expected.SAME}, {"mean": 0.0, "same": True, "expect": Expected.SAME},
         Agreement.AGREE),
        ({"mean": 0.1, "expect": Expected.LOWER}, {"mean": 0.0, "same": True, "expect": Expected.LOWER},
         Agreement.AGREE),  # the claim fails twice
    ],
)  # fmt: skip
def test_what_is_decided_once_is_told_from_a_contradiction(finding, one, other, agreement):
    assert Twice(finding(**one), finding(**other)).agreement is agreement


def test_the_summary_counts_and_names(finding):
    agree, once = Twice(finding(-0.1), finding(-0.1)), Twice(finding(-0.1), finding(-0.1, decided=False))
    both, lacking = (
        Twice(finding(0.1, decided=False), finding(0.1, decided=False)),
        Twice(finding(-0.1), dataclasses.replace(finding(-0.1), tested=None)),
    )
    assert summary([agree, agree, lacking]) == "2 of 2 verdicts agree"
    pair = "token top-2 − dense 1x (lower, then undecided at this size)"
    assert summary([agree, both, once]) == (
        f"2 of 3 verdicts agree (1 of them undecided in both); where not, decided in one alone: {pair}"
    )
    assert summary([once, once], where=False) == "0 of 2 verdicts agree, 2 decided in one alone"
