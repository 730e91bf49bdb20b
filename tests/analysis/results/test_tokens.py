"""Loss and work token by token: what is kept of traces, and what is said of it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from moe_study.analysis.frame import load_frame
from moe_study.analysis.results import tokens
from moe_study.analysis.results.measure import Kept
from moe_study.analysis.results.tokens import by_group, collect, hardness, on_the_whole_probe, tokens_text, unseen
from moe_study.analysis.results.verdicts import OPEN
from moe_study.analysis.specialisation.by_token import FREQUENCY, HARDNESS, POSITION
from moe_study.analysis.study import study_of
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, Members, PlannedComparison
from moe_study.runs.traces import TraceIdentity, write_trace
from tests.analysis import planted

SEEDS = range(4)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Planted runs with two comparisons: token top-2 and sequence top-2, each against dense 1x."""
    root = tmp_path_factory.mktemp("tokens") / "runs"
    keys = [folder.name for folder in planted.plant(root, seeds=SEEDS)]
    dense, two, sequence = (tuple(keys[place : place + 4]) for place in (0, 12, 20))
    comparisons = (
        PlannedComparison("the two", "the dense", two, dense, "Are two better?", 0.05),
        PlannedComparison("the sequence", "the dense", sequence, dense, "Is the sequence?", 0.05),
    )
    return study_of(load_frame([root]), [Members((Launch((), tuple(keys), comparisons),))])


def table(study, value):
    """Groups of tokens of every run; `value`(label, seed) is their loss, which rises by 1 from group to group."""
    groups = [(POSITION, 0, "0"), (POSITION, 1, "1"), (FREQUENCY, 0, "often"), (FREQUENCY, 4, "rarely")]
    groups += [(HARDNESS, place, f"{place + 1}") for place in range(10)]
    rows = [
        {"key": run["key"], "label": run["label"], "seed": int(run["seed"]), "part": "", "by": by, "place": place,
         "name": name, "tokens": 9, "loss": value(run["label"], run["seed"]) + place, "predicted": 3 if place else 1,
         "experts": 2.0 + (place if run["label"] == "token top-2" else 0.0)}
        for run in study.parts[0].runs.to_dict("records") for by, place, name in groups
    ]  # fmt: skip
    return pd.DataFrame(rows)


def planted_loss(label, seed):
    """A level of its own for each seed, which pairing takes away; token top-2 is 0.25 below dense 1x, and noisy."""
    return seed * 10.0 + {"dense 1x": 0.5, "token top-2": 0.25 + 0.01 * (seed % 2)}.get(label, 0.3 + 0.2 * (seed % 2))


@pytest.fixture(scope="module")
def kept(study):
    return Kept(table(study, planted_loss), study, "small")


def test_differences_token_by_token_are_paired_by_seed(study):
    rows = table(study, lambda label, seed: seed * 10.0 + (0.5 if label == "dense 1x" else 0.25))
    section = tokens_text(Kept(rows, study, "small")).partition("## token top-2 − dense 1x")[2].partition("##")[0]
    assert "| position | 0 | -0.250 [-0.250, -0.250] |" in section and "| position | 1 | -0.250" in section
    assert HARDNESS not in section


def test_the_whole_probe_is_weighed_by_predicted_tokens_and_tested_as_one_family(kept, study):
    found = on_the_whole_probe(kept)
    losses = {
        label: np.array([(planted_loss(label, s) + 3 * (planted_loss(label, s) + 1)) / 4 for s in SEEDS])
        for label in ("dense 1x", "token top-2", "sequence top-2")
    }
    p = [scipy.stats.ttest_rel(losses[label], losses["dense 1x"]).pvalue for label in ("token top-2", "sequence top-2")]
    assert [one.tested.difference.p for one in found] == pytest.approx(p)
    assert found[0].tested.p == pytest.approx(2 * min(p)) and p[0] < p[1]  # Holm: the smaller pays for both
    assert [one.verdict for one in found] == ["lower", OPEN]
    assert found[0].tested.margin == 0.05 and found[0].tested.family == 2
    says = list(unseen(kept))
    assert says[0].startswith("**lower**: On texts of small, which no run trains on: token top-2 − dense 1x: -0.245 [")
    assert "Are two better?" not in says[0]  # which was asked of the text that runs train on
    assert "| Are two better? | token top-2 − dense 1x | -0.245 [" in tokens_text(kept)


def test_a_point_without_a_trace_is_not_compared(kept):
    rows = kept.rows[kept.rows["label"] != "sequence top-2"]
    assert [one.claim.left for one in on_the_whole_probe(kept._replace(rows=rows))] == ["token top-2"]


def test_what_not_all_runs_have_read_is_said(kept):
    label, seed = kept.rows["label"], kept.rows["seed"]
    rows = kept.rows[(label != "sequence top-2") & ((label != "dense 1x") | (seed != 3))]
    some = kept._replace(rows=rows)
    lacking = "Not all runs have read small, which moe-study results --probe small mends: token top-2 − dense 1x (3 of "
    lacking += "4 seeds); sequence top-2 † − dense 1x (0 of 4 seeds)"
    assert list(unseen(some))[-1] == list(by_group(some))[-1] == lacking and f"{lacking}." in tokens_text(some)
    for whole in (list(unseen(kept)), list(by_group(kept)), tokens_text(kept).splitlines()):
        assert not any("Not all runs" in line for line in whole)


def test_sentences_name_either_end_of_position_and_frequency(kept):
    first = next(by_group(kept))
    assert first.startswith("token top-2 − dense 1x, on small: -0.245 [")
    assert " at position 0 and " in first and " at position 1; " in first and " at often and " in first


def test_points_that_read_later_tokens_carry_their_mark(kept):
    assert "## sequence top-2 † − dense 1x" in tokens_text(kept) and "## token top-2 − dense 1x" in tokens_text(kept)
    assert list(by_group(kept))[1].startswith("sequence top-2 † − dense 1x, on small: ")


def test_harder_tokens_are_said_to_get_more_experts_where_tokens_differ(kept):
    (only,) = hardness(kept)
    assert only.startswith("token top-2: +9.000 [+9.000, +9.000] experts more")
    assert "by position from 2.00 (0) to 3.00 (1), by frequency from 2.00 (often) to 6.00 (rarely)" in only


def test_runs_of_each_data_set_stand_apart(study, kept):
    part = study.parts[0]
    two = dataclasses.replace(study, parts=(dataclasses.replace(part, name="a"), dataclasses.replace(part, name="b")))
    rows = pd.concat([kept.rows.assign(part="a"), kept.rows.assign(part="b", loss=-kept.rows["loss"])])
    first, second, third, _ = on_the_whole_probe(Kept(rows, two, "small"))
    assert {first.claim.right, third.claim.right} == {"dense 1x"} and second.claim.left == "sequence top-2"
    assert first.tested.difference.mean == pytest.approx(-third.tested.difference.mean)
    assert "## token top-2 − dense 1x, b" in tokens_text(Kept(rows, two, "small"))


# From run folders ---------------------------------------------------------------------------------------------------


def leave_trace(folder, probe, fingerprint, tokens=8):
    identity = TraceIdentity(folder.key, None, probe, fingerprint)
    with write_trace(folder.traces_folder, identity) as writer:
        writer.facts = {"window": 4}
        writer.add_probe(np.arange(tokens) % 3, np.array([0, tokens]), {}, {})
        writer.add_loss(np.concatenate([[np.nan], np.full(tokens - 1, 2.0)]))


@pytest.fixture
def folders(tmp_path):
    return [RunFolder(tmp_path / name) for name in ("a", "b", "c")]


def study_of_folders(folders):
    frame = pd.DataFrame(
        {"key": [one.key for one in folders], "label": "x", "seed": range(len(folders)), "state": "done",
         "folder": [str(one.path) for one in folders]}
    )  # fmt: skip
    return SimpleNamespace(parts=[SimpleNamespace(name="", frame=frame)])


def test_a_probe_counts_that_most_runs_have_a_trace_of(folders):
    for folder in folders[:2]:
        leave_trace(folder, "brown", "1" * 64)
    leave_trace(folders[0], "other", "2" * 64)
    found = collect(study_of_folders(folders))
    assert set(found) == {"brown"} and set(found["brown"]["key"]) == {"a", "b"}
    assert list(found["brown"])[:3] == ["key", "label", "seed"]
    assert found["brown"].query("by == 'position'")["loss"].dropna().eq(2.0).all()


def test_of_two_traces_of_one_probe_the_one_of_most_runs_counts_and_then_the_larger(folders):
    for folder in folders:
        leave_trace(folder, "brown", "1" * 64, tokens=8)
    for folder in folders[:2]:
        leave_trace(folder, "brown", "2" * 64, tokens=12)
    assert collect(study_of_folders(folders))["brown"].query("by == 'position' and key == 'a'")["tokens"].sum() == 8
    leave_trace(folders[2], "brown", "2" * 64, tokens=12)
    assert collect(study_of_folders(folders))["brown"].query("by == 'position' and key == 'a'")["tokens"].sum() == 12


def test_runs_without_traces_keep_nothing(folders):
    assert tokens.MEASURE.collect(study_of_folders(folders)) == {}
