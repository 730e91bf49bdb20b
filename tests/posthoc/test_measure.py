"""Findings of one run: made of its trace by the pure functions, used again while they fit, and made anew when not."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from moe_study.analysis.specialisation.hidden_states import clusters, hidden_state_control
from moe_study.analysis.specialisation.layer_trace import LayerTrace, first_documents
from moe_study.analysis.specialisation.rows import information_rows
from moe_study.analysis.specialisation.run_tables import COLUMNS, CONTROL, measured_of, with_position
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.posthoc import measure as module
from moe_study.posthoc.measure import ALL_MEASURES, Wish, kept_findings, measure
from moe_study.posthoc.router_states import router_states
from moe_study.posthoc.trace import Tracer, identity_of, trace_run
from moe_study.runs.findings import all_findings
from moe_study.runs.folder import RunFolder
from tests.part import every
from tests.posthoc.runs import save_weights, small_probe, untrained_run

WISH = Wish("small", tokens=10**6, permutations=19)
PROBE = small_probe((5, 12, 13, 6, 30, 7, 24, 12, 5, 9, 14, 8))
POINTS = {
    "token": {"k": 2},
    "expert choice": {"selection": "expert_choice", "k": 2},
    "soft": {"selection": "soft"},
    "merge": {"selection": "merge", "unit": "sequence", "context": "unit_mean"},
    "threshold": {"selection": "threshold", "threshold": 0.5},
    "dense": {"selection": "dense"},
}


def run_of(folder, name):
    return untrained_run(folder / "runs", from_plain(Routing, POINTS[name]))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One run with all findings; not to be changed."""
    folder = run_of(tmp_path_factory.mktemp("measured"), "token")
    measure(folder, PROBE, WISH, progress=False)
    return folder


@pytest.fixture
def run(measured, tmp_path):
    """A copy of it."""
    return RunFolder(shutil.copytree(measured.path, tmp_path / measured.key))


@pytest.fixture
def computed(monkeypatch):
    """Names of the tables that are computed from here on."""
    found = []
    original = module.run_table
    monkeypatch.setattr(module, "run_table", lambda name, *rest: found.append(name) or original(name, *rest))
    control = module.control_table
    monkeypatch.setattr(module, "control_table", lambda *rest: found.append(CONTROL) or control(*rest))
    return found


def layers_of(run):
    trace = trace_run(run, PROBE, progress=False)
    return with_position({number: LayerTrace(**trace.layer(number)) for number in trace.layers})


def test_information_of_the_trace_reaches_the_folder_unchanged(measured):
    table = kept_findings(measured, PROBE, WISH)["information"].table
    layers = layers_of(measured)
    expected = information_rows(list(layers.values()), "picks", WISH.permutations)
    assert len(table) == len(expected) and set(table["layer"]) == set(layers)
    for row, theirs in zip(table.itertuples(), expected, strict=True):
        assert (row.label, row.given, row.layer) == (theirs.label, theirs.given, list(layers)[theirs.layer])
        assert measured_of(row) == theirs.measured or np.isnan(row.value + row.floor)
        np.testing.assert_array_equal(row.null, theirs.measured.null_R)


def test_the_control_is_of_clusters_of_what_the_routers_read(measured):
    table = kept_findings(measured, PROBE, WISH)[CONTROL].table
    tracer = Tracer.of(measured)
    states = router_states(tracer, PROBE, np.zeros(PROBE.documents, np.int64), WISH.tokens)
    for number, layer in layers_of(measured).items():
        cluster_T = clusters(states[number], layer.experts)
        for label, known, both in (
            ("language", "", "cluster"),
            ("topic", "", "cluster"),
            ("part of speech", "token id", "token id and cluster"),
        ):
            control = hidden_state_control(layer, cluster_T, label, "picks", WISH.permutations)
            for of, given, theirs in (
                ("expert", known, control.expert),
                ("cluster", known, control.cluster),
                ("expert", both, control.expert_given_cluster),
            ):
                (row,) = table[
                    (table[["layer", "label", "of", "given"]] == [number, label, of, given]).all(axis=1)
                ].itertuples()
                np.testing.assert_array_equal(row.null, theirs.null_R)
                assert row.value == theirs.value and row.p == theirs.p and row.excess == theirs.excess
                assert row.routes_explained == control.routes_explained
    assert "position" not in set(table["label"])


def test_the_control_is_of_the_first_documents_alone(run, monkeypatch):
    monkeypatch.setattr(module, "CONTROL_TOKENS", 40)
    for path in run.findings_folder.rglob(f"{CONTROL}.parquet"):
        path.unlink()
    measure(run, PROBE, WISH, progress=False)
    table = kept_findings(run, PROBE, WISH)[CONTROL].table
    cut = first_documents(layers_of(run)[0], 40)
    assert len(cut.token_T) == 66 and set(table["tokens"][table["label"] == "language"]) == {66}


@pytest.mark.parametrize("name", every(2, POINTS))
def test_every_routing_is_measured(tmp_path, name):
    folder = run_of(tmp_path, name)
    measure(folder, PROBE, WISH, progress=False)
    found = kept_findings(folder, PROBE, WISH)
    assert set(found) == set(ALL_MEASURES)
    for table_name, finding in found.items():
        assert tuple(finding.table.columns) == COLUMNS[table_name]
        assert bool(len(finding.table)) == (name != "dense")
        assert finding.facts["documents"] == PROBE.documents and finding.facts["tokens"] == len(PROBE.token_T)
    if name != "dense":
        by_gate = name in ("soft", "merge")
        assert set(found["load"].table["weighted_by"]) == {"gate" if by_gate else "picks"}


def test_what_is_there_is_not_computed_again(run, computed):
    measure(run, PROBE, WISH, progress=False)
    assert computed == []


def test_it_is_there_without_trace_and_checkpoint(run, computed):
    shutil.rmtree(run.traces_folder)
    shutil.rmtree(run.checkpoint_folder)
    assert set(kept_findings(run, PROBE, WISH)) == set(ALL_MEASURES)
    measure(run, PROBE, WISH, progress=False)
    assert computed == []


def test_a_missing_or_damaged_table_alone_is_made_again(run, computed):
    folder = identity_of(run, PROBE).folder_in(run.findings_folder)
    (folder / "load.parquet").write_bytes(b"PAR1 not quite")
    (folder / "paths.parquet").unlink()
    measure(run, PROBE, WISH, progress=False)
    assert computed == ["load", "paths"] and set(kept_findings(run, PROBE, WISH)) == set(ALL_MEASURES)


def test_other_permutations_measures_weights_or_probes_are_other_findings(run, computed, monkeypatch):
    assert kept_findings(run, PROBE, replace(WISH, permutations=20)) == {}
    other_probe = replace(PROBE, fingerprint="ff" * 32)
    assert kept_findings(run, other_probe, WISH) == {}
    monkeypatch.setattr(module, "MEASURES", module.MEASURES + 1)
    assert kept_findings(run, PROBE, WISH) == {}
    monkeypatch.undo()
    config = run.read_config()
    save_weights(run, replace(config, run=replace(config.run, seed=1)))
    assert kept_findings(run, PROBE, WISH) == {}


def test_a_wish_for_less_measures_less(tmp_path, computed):
    folder = run_of(tmp_path, "token")
    measure(folder, PROBE, replace(WISH, measures=("load", "shares")), progress=False)
    assert computed == ["load", "shares"]
    assert [len(list(all_findings(folder.findings_folder, name))) for name in ("load", "paths")] == [1, 0]


def test_without_a_model_all_but_the_hidden_states_is_measured_and_said(run):
    shutil.rmtree(run.findings_folder)
    shutil.rmtree(run.checkpoint_folder)
    with pytest.raises(StudyError, match="checkpoint"):
        measure(run, PROBE, WISH, progress=False)
    assert set(kept_findings(run, PROBE, WISH)) == set(ALL_MEASURES) - {CONTROL}


def test_more_experts_than_hidden_states_leave_the_control_out_with_a_sentence(tmp_path):
    folder = untrained_run(tmp_path / "runs", Routing(num_experts=300, k=2, expert_size=4))
    measure(folder, PROBE, replace(WISH, measures=(CONTROL,)), progress=False)
    finding = kept_findings(folder, PROBE, replace(WISH, measures=(CONTROL,)))[CONTROL]
    assert not len(finding.table) and len(finding.facts["notes"]) == 3
    assert "no hidden-state control for layer 0" in finding.facts["notes"][0]
    assert "300 different hidden states" in finding.facts["notes"][0]
