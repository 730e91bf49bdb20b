import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.frame import done, load_frame
from moe_study.analysis.probes import probe_findings
from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.rows import information_rows
from moe_study.runs.columns import Holds
from moe_study.runs.findings import write_finding
from moe_study.runs.traces import TraceIdentity
from tests.analysis import planted
from tests.analysis.plots.found import keep_findings, layers_of

NAMES = ("information", "shares", "paths")


@pytest.fixture(scope="module")
def layers():
    return {seed: layers_of("topic", seed) for seed in (0, 1)}


@pytest.fixture
def folders(tmp_path, layers):
    """Token top-1 and dense 1x with two seeds each; the dense ones have tables without rows."""
    folders = planted.plant(tmp_path, (planted.TOKEN_1, planted.DENSE_1X), (0.0, 0.0))
    for seed, folder in enumerate(folders):
        keep_findings(folder, layers[seed] if seed < 2 else {}, NAMES)
    return folders


def test_findings_stand_under_one_another_with_the_names_of_their_runs(folders, layers):
    (probe,) = probe_findings(done(load_frame(folders)))
    assert probe.name == "planted" and set(probe.found) == set(NAMES)
    shares = probe.shares
    assert list(shares.columns[:4]) == ["label", "point", "key", "seed"] and "of" in shares
    assert set(zip(shares["label"], shares["seed"], strict=True)) == {("token top-1", 0), ("token top-1", 1)}
    trace = layers[1][1]
    topic_T = np.asarray(trace.document_labels["topic"][0])[trace.document_T]
    row = shares.query("seed == 1 and layer == 1 and of == 'topic' and domain == 'topic 2' and expert == 3")
    assert row["share"].iloc[0] == pytest.approx(np.mean(trace.expert_P[topic_T == 2] == 3))
    assert probe.over("shares") == "probe planted, 1.2k tokens, 40 documents"


def test_shares_are_weighted_as_the_information_of_the_run_is(tmp_path):
    """By gate where every token has every expert: its picks say nothing."""
    folders = planted.plant(tmp_path, (planted.TOKEN_1,), (0.0,))
    every = layers_of("topic", 1, layers=1, top=4)
    for folder, layers in zip(folders, (layers_of("topic", 0, layers=1), every), strict=True):
        keep_findings(folder, layers, ("information", "shares"))
    (probe,) = probe_findings(done(load_frame(folders)))
    assert probe.shares.groupby("seed")["weighted_by"].unique().map(list).to_dict() == {0: ["picks"], 1: ["gate"]}
    row = probe.shares.query("seed == 1 and of == 'topic' and domain == 'topic 0' and expert == 2").iloc[0]
    topic_T = np.asarray(every[0].document_labels["topic"][0])[every[0].document_T]
    weights = every[0].weight_P[every[0].expert_P == 2]  # one of each token, in order
    assert row["share"] == pytest.approx(weights[topic_T == 0].mean())


def test_information_is_averaged_over_the_seeds_of_a_point(folders, layers):
    (probe,) = probe_findings(done(load_frame(folders)))
    row = probe.information.query("label == 'topic' and given == '' and layer == 0").iloc[0]
    assert (row["point"], row["seeds"]) == ("token top-1", 2)
    values = [
        one.measured.value
        for of_run in layers.values()
        for one in information_rows(list(of_run.values()), permutations=40)
        if (one.layer, one.label, one.given) == (0, "topic", "")
    ]
    assert row["value"] == pytest.approx(np.mean(values), rel=1e-12) and probe.permutations == 40


def test_labels_of_tokens_are_asked_given_the_token_id_only(folders):
    (probe,) = probe_findings(done(load_frame(folders)))
    questions = set(zip(probe.information["label"], probe.information["given"], strict=True))
    assert ("part of speech", "token id") in questions and ("part of speech", "") not in questions
    assert ("topic", "") in questions and ("token id", "") in questions


def keep(folder, probe, letters, name, tokens):
    identity = TraceIdentity(folder.name, None, probe, letters * 32)
    write_finding(folder / "findings", identity, name, one_row(name), {"tokens": tokens})


def one_row(name, **values):
    """A table that has every column of the finding `name`."""
    filled = {Holds.TEXT: "", Holds.LIST: [0.0]}
    whole = {column: [filled.get(holds, 0)] for column, holds in FINDING_COLUMNS[name].items()}
    return pd.DataFrame(whole | values)


def test_findings_on_another_cut_of_a_probe_stand_apart_only_where_there_are_two_of_one_name(folders):
    for name in ("paths", "load"):
        keep(folders[0], "planted", "cd", name, 5000)
    most, other = probe_findings(done(load_frame(folders)))
    assert (most.name, set(most.found)) == ("planted", {*NAMES, "load"})
    assert (other.name, set(other.found)) == ("planted-cdcdcd", {"paths"})
    assert len(most.found["paths"]) == 4 and other.table("paths")["key"].tolist() == [folders[0].name]
    assert most.over("load") == "probe planted, 5k tokens" and other.table("shares").empty


def test_what_the_same_runs_have_on_more_tokens_supersedes_a_first_look(folders):
    for folder in folders[:2]:
        keep(folder, "brown", "ef", "load", 10)
        keep(folder, "brown", "cd", "load", 600)
    keep(folders[2], "brown", "aa", "load", 20)
    found = {probe.name: probe for probe in probe_findings(done(load_frame(folders)))}
    assert set(found) == {"planted", "brown", "brown-aaaaaa"}
    assert found["brown"].over("load") == "probe brown, 600 tokens" and len(found["brown"].found["load"]) == 2


def test_the_row_of_all_domains_says_how_much_was_read(folders):
    numbers = {"tokens": [70, 900], "documents": [3, 11]}
    of_topic, of_all = ({name: [values[n]] for name, values in numbers.items()} for n in (0, 1))
    rows = pd.concat([one_row("knockout", label="topic", domain="law", **of_topic), one_row("knockout", **of_all)])
    write_finding(
        folders[0] / "findings", TraceIdentity(folders[0].name, None, "brown", "ef" * 32), "knockout", rows, {}
    )
    (brown, _) = probe_findings(done(load_frame(folders)))
    assert brown.over("knockout") == "probe brown, 900 tokens, 11 documents"


def test_columns_that_clash_with_those_of_runs_have_other_names(folders):
    control = pd.DataFrame({"layer": [0], "label": ["topic"], "of": ["cluster"], "seed": [7]})
    write_finding(
        folders[0] / "findings", TraceIdentity(folders[0].name, None, "brown", "ef" * 32), "control", control, {}
    )
    (brown, _) = probe_findings(done(load_frame(folders)))
    (row,) = brown.table("control").to_dict("records")
    assert (row["label"], row["seed"]) == ("token top-1", 0)
    assert (row["of"], row["whose"], row["draws_seed"]) == ("topic", "cluster", 7)


def test_findings_of_another_run_are_left_out(folders):
    another = TraceIdentity("another", None, "brown", "cd" * 32)
    write_finding(folders[0] / "findings", another, "load", one_row("load"), {})
    assert [probe.name for probe in probe_findings(done(load_frame(folders)))] == ["planted"]


def test_runs_without_findings_and_damaged_ones_give_nothing(folders):
    (path,) = (folders[0] / "findings").glob("*/shares.parquet")
    path.write_bytes(b"damaged")
    (probe,) = probe_findings(done(load_frame(folders)))
    assert set(probe.shares["seed"]) == {1}
    for folder in folders:
        for path in (folder / "findings").glob("*/*.parquet"):
            path.unlink()
    assert probe_findings(done(load_frame(folders))) == ()
