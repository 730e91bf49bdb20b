"""Tables of one run hold what the pure functions say, to the last bit, also after a file."""

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.specialisation.agreement import agreement_with_label, paths
from moe_study.analysis.specialisation.domains import domain_distances, shares
from moe_study.analysis.specialisation.load import co_activation, committee, load, spread
from moe_study.analysis.specialisation.rows import information_rows
from moe_study.analysis.specialisation.run_tables import (
    COLUMNS,
    TABLES,
    information_of,
    run_table,
    weighting,
    with_position,
)
from moe_study.analysis.specialisation.share_nulls import share_nulls
from moe_study.runs.findings import find_finding, write_finding
from moe_study.runs.traces import TraceIdentity
from tests.analysis.specialisation.planted_routes import planted_trace

PERMUTATIONS = 29
IDENTITY = TraceIdentity("run", "weights", "probe", "0" * 64)
LABELS = ("language", "topic")


@pytest.fixture(scope="module")
def layers():
    """Two layers over the same tokens, under other numbers than their places."""
    first = planted_trace(np.random.default_rng(1), "topic", 1.5, top=2)
    other = planted_trace(np.random.default_rng(1), "topic", 0.2, top=2)
    found = with_position({1: first, 4: other})
    for layer in found.values():
        for value in vars(layer).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)  # no table may change what the next one is made of
    return found


@pytest.fixture(scope="module")
def tables(layers, tmp_path_factory):
    """As they come back from the run's folder."""
    folder = tmp_path_factory.mktemp("findings")
    found = {}
    for name in TABLES:
        write_finding(folder, IDENTITY, name, run_table(name, layers, PERMUTATIONS), {})
        finding = find_finding(folder, IDENTITY, name, {})
        assert finding is not None
        found[name] = finding.table
    return found


def test_every_table_has_its_columns_and_says_what_they_are(tables):
    for name in TABLES:
        assert tuple(tables[name].columns) == COLUMNS[name] and len(tables[name])


def test_information_comes_back_as_the_same_rows_with_their_draws(layers, tables):
    expected = information_rows(list(layers.values()), "picks", PERMUTATIONS)
    found = information_of(tables["information"])
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.layer, ours.label, ours.given) == (theirs.layer, theirs.label, theirs.given)
        for name, value in vars(theirs.measured).items():
            np.testing.assert_array_equal(getattr(ours.measured, name), value)
    assert set(tables["information"]["layer"]) == {1, 4}
    of_tokens = tables["information"].groupby("label")["of_tokens"].first()
    assert of_tokens.to_dict() == {
        "language": False,
        "topic": False,
        "token id": False,
        "part of speech": True,
        "position": True,
    }


@pytest.mark.parametrize("label", ["language", "topic", "part of speech"])
@pytest.mark.parametrize("by", ["picks", "gate"])
def test_every_bar_has_its_share_lift_and_band(layers, tables, label, by):
    table = tables["shares"]
    assert "position" not in set(table["label"])
    nulls = share_nulls(list(layers.values()), label, by, PERMUTATIONS)
    for (number, layer), null in zip(layers.items(), nulls, strict=True):
        own = table[(table["layer"] == number) & (table["label"] == label) & (table["weighted_by"] == by)]
        measured = shares(layer, label, by)
        assert own["domain"].tolist() == np.repeat(measured.names, layer.experts).tolist()
        assert own["expert"].tolist() == [*range(layer.experts)] * len(measured.names)
        columns = {"share": measured.share_LE, "lift": measured.lift_LE, "null_mean": null.mean_LE}
        columns |= {"null_low": null.low_LE, "null_high": null.high_LE}
        columns["tokens"] = np.repeat(measured.tokens_L, layer.experts).reshape(-1, layer.experts)
        columns["overall"] = np.tile(load(layer, by).share_E, (len(measured.names), 1))
        for name, values_LE in columns.items():
            np.testing.assert_array_equal(own[name], values_LE.ravel())


def test_load_and_certainty_of_the_router(layers, tables):
    for number, layer in layers.items():
        (row,) = tables["load"][tables["load"]["layer"] == number].to_dict("records")
        measured = load(layer)
        assert row["evenness"] == measured.variation and row["largest_violation"] == measured.largest_violation
        assert row["effective_experts"] == measured.effective_experts and row["unused"] == measured.unused
        assert row["entropy_median"] == spread(layer.entropy_T).median
        assert row["margin_high"] == spread(layer.margin_T).high and row["dropped"] == 0


def test_co_activation_of_all_pairs(layers, tables):
    for number, layer in layers.items():
        own, measured = tables["co_activation"], co_activation(layer)
        own = own[own["layer"] == number]
        assert own[["first", "second"]].to_numpy().tolist() == [[i, j] for i in range(4) for j in range(4)]
        np.testing.assert_array_equal(own["both"], measured.both_EE.ravel())
        np.testing.assert_array_equal(own["given_first"], measured.given_first_EE.ravel())
        np.testing.assert_array_equal(own["lift"], measured.lift_EE.ravel())


def test_paths_through_all_layers(layers, tables):
    (row,) = tables["paths"].to_dict("records")
    measured = paths(list(layers.values()))
    assert row == {"layers": 2, **vars(measured), "total_correlation": measured.total_correlation}


def test_distances_of_every_pair_of_domains(layers, tables):
    for number, layer in layers.items():
        for label in LABELS:
            own = of(tables["distances"], number, label)
            expected = domain_distances(layer, label, resamples=PERMUTATIONS)
            assert len(own) == len(expected) == {"language": 1, "topic": 3}[label]
            for row, measured in zip(own.to_dict("records"), expected, strict=True):
                plain = {**vars(measured)}
                assert (row.pop("first_documents"), row.pop("second_documents")) == plain.pop("documents")
                assert row == {"layer": number, "label": label, **plain}


def test_agreement_with_the_label_router(layers, tables):
    for number, layer in layers.items():
        for label in LABELS:
            (row,) = of(tables["agreement"], number, label).to_dict("records")
            codes_D, names = layer.document_label(label)
            measured = agreement_with_label(layer, codes_D, permutations=PERMUTATIONS)
            assert {name: row[name] for name in ("share", "chance", "bound", "p")} == {
                name: getattr(measured, name) for name in ("share", "chance", "bound", "p")
            }
            assert dict(enumerate(row["experts_of_labels"])) == measured.expert_of_label
            assert len(row["experts_of_labels"]) == len(names)


def test_committee_and_its_coverage(layers, tables):
    for number, layer in layers.items():
        for label in LABELS:
            own, measured = of(tables["committee"], number, label), committee(layer, label)
            assert tuple(own["expert"][own["member"]]) == measured.members
            assert own["coverage"].unique().tolist() == [measured.coverage]
            np.testing.assert_array_equal(own["mean_rank"], measured.mean_rank_E)
            np.testing.assert_array_equal(own["present"], measured.present_E)


def of(table: pd.DataFrame, layer: int, label: str) -> pd.DataFrame:
    return table[(table["layer"] == layer) & (table["label"] == label)]


def test_a_run_without_experts_has_tables_without_rows(tmp_path):
    for name in TABLES:
        table = run_table(name, {}, PERMUTATIONS)
        assert tuple(table.columns) == COLUMNS[name] and not len(table)
        write_finding(tmp_path, IDENTITY, name, table, {})
        assert find_finding(tmp_path, IDENTITY, name, {}) is not None


def test_experts_that_take_every_token_are_weighted_by_the_gate():
    probe = planted_trace(np.random.default_rng(3), top=4)
    assert weighting({0: probe}) == "gate" and weighting({}) == "picks"
    assert set(run_table("load", {0: probe})["weighted_by"]) == {"gate"}
    assert weighting({0: probe, 1: planted_trace(np.random.default_rng(3), top=2)}) == "picks"
