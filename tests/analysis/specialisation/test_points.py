"""Points over seeds, in frames, words and files: planted routes, nothing trained."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.specialisation import points
from moe_study.analysis.specialisation.points import MeasuredRun, measured_run, points_of, to_frame
from moe_study.analysis.specialisation.report import write_report
from moe_study.analysis.specialisation.rows import information_rows, over_seeds
from moe_study.analysis.specialisation.run_tables import run_table
from moe_study.analysis.specialisation.sentences import sentences
from moe_study.errors import DataError
from tests.analysis.specialisation.planted_routes import planted_trace

PERMUTATIONS = 199
NUMBERS = {0: 1, 1: 3}  # place of a layer -> its number in the model


def measure_run(point, seed, leaks, layers, permutations):
    return measured_run(point, seed, leaks, run_table("information", layers, permutations))


def seeds_of(follow: str, point: str, seeds: int = 4, leaks: bool = False, strength: float = 1.5) -> list[MeasuredRun]:
    """Runs over one probe: layer 1 follows what it is told to, layer 3 nothing."""
    probe = planted_trace(np.random.default_rng(5), follow, strength)
    runs = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        number_of_expert_E = random.permutation(probe.experts)  # experts have no identity across seeds
        noise_T = random.random(len(probe.expert_P)) < (1.0 if follow == "nothing" else 0.1)
        own_P = np.where(noise_T, random.integers(4, size=len(noise_T)), number_of_expert_E[probe.expert_P])
        layers = {
            1: replace(probe, expert_P=own_P),
            3: replace(probe, expert_P=random.integers(4, size=len(probe.expert_P))),
        }
        runs.append(measure_run(point, seed, leaks, layers, PERMUTATIONS))
    return runs


@pytest.fixture(scope="module")
def by_topic() -> list[MeasuredRun]:
    return seeds_of("topic", "planted")


@pytest.fixture(scope="module")
def by_nothing() -> list[MeasuredRun]:
    return seeds_of("nothing", "random", leaks=True)


def lines_of(runs: list[MeasuredRun], permutations: int = PERMUTATIONS) -> dict[str, list[str]]:
    """Lines by their heading; those under no question stand under ""."""
    found: dict[str, list[str]] = {"": []}
    question = ""
    for line in sentences(points_of(runs), permutations):
        if line.endswith("?"):
            question = line
            found[question] = []
        else:
            found[question if line.startswith(" ") else ""].append(line.strip())
    return found


def test_a_planted_label_is_shown_in_its_layer_and_in_no_other(by_topic):
    found = lines_of(by_topic)
    for question in ("Do experts follow topic?", "Do experts follow topic beyond token id?"):
        (line,) = found[question]
        assert line.startswith("planted: shown in layer 1 (") and ", not in layer 3 (" in line
        assert line.endswith("(4 seeds)")
    for question in set(found) - {"", "Do experts follow topic?"}:
        if "topic" not in question:
            assert found[question][0].startswith("planted: not shown in layer 1 (")


def test_routes_that_follow_nothing_show_nothing(by_nothing):
    lines = [line for question, of_one in lines_of(by_nothing).items() if question for line in of_one]
    assert len(lines) == 9
    assert all(" not shown in layer 1 (" in line and " and layer 3 (" in line for line in lines)


def test_labels_of_tokens_are_asked_beyond_the_token_id_alone(by_topic):
    found = lines_of(by_topic)
    assert {"Do experts follow part of speech beyond token id?", "Do experts follow token id?"} <= set(found)
    assert not {"Do experts follow part of speech?", "Do experts follow position?"} & set(found)


def test_numbers_are_those_of_the_rows_over_seeds_under_the_layers_own_numbers(by_topic):
    (point,) = points_of(by_topic)
    expected = over_seeds([run.rows for run in by_topic])
    assert [row.over_seeds for row in point.rows] == expected
    assert [row.layer for row in point.rows] == [NUMBERS[row.layer] for row in expected]
    frame = to_frame([point])
    assert frame["excess_low"].tolist() == [row.excess.low for row in expected]
    one = frame[(frame["label"] == "topic") & (frame["given"] == "") & (frame["layer"] == 1)].iloc[0]
    text = (
        f"layer 1 ({one['excess']:.4f} [{one['excess_low']:.4f}, {one['excess_high']:.4f}], p {one['p_adjusted']:.2g})"
    )
    assert text in lines_of(by_topic)["Do experts follow topic?"][0]


def test_each_question_is_one_family_over_points_and_layers_with_the_larger_p_value(by_topic, by_nothing):
    frame = to_frame(points_of([*by_topic, *by_nothing]))
    for _, family in frame.groupby(["label", "given"]):
        p = family[["p_seeds", "p_documents"]].max(axis=1).sort_values()
        naive = pd.Series(np.minimum(1, np.maximum.accumulate(p.to_numpy() * [4, 3, 2, 1])), p.index)
        assert family["p_adjusted"].to_dict() == pytest.approx(naive.to_dict())
        assert family["family"].eq(4).all()
        assert family["shown"].eq((family["p_adjusted"] <= 0.05) & (family["excess"] > 0)).all()


@pytest.mark.parametrize("doubtful", ["p_seeds", "p_documents"])
def test_neither_seeds_nor_documents_alone_carry_a_claim(by_topic, doubtful, monkeypatch):
    monkeypatch.setattr(points, "over_seeds", lambda rows: [replace(r, **{doubtful: 0.2}) for r in over_seeds(rows)])
    lines = lines_of(by_topic)["Do experts follow topic?"]
    assert lines[0].startswith("planted: not shown in layer 1 (")


def test_information_below_the_null_is_never_shown(by_topic, monkeypatch):
    def below(rows):
        changed = {"p_seeds": 0.001, "p_documents": 0.001}
        return [replace(row, excess=replace(row.excess, mean=-1.0), **changed) for row in over_seeds(rows)]

    monkeypatch.setattr(points, "over_seeds", below)
    assert "planted: shown" not in "\n".join(sentences(points_of(by_topic), PERMUTATIONS))


def test_one_seed_is_described_without_a_verdict(by_topic):
    found = lines_of(by_topic[:1])
    (line,) = found["Do experts follow topic?"]
    assert line.startswith("planted: 0.") and line.endswith("(one seed: described, not tested)")
    assert not any("shown in" in line for question, of_one in found.items() if question for line in of_one)
    assert to_frame(points_of(by_topic[:1]))["shown"].isna().all()


def test_leaking_points_carry_their_mark_and_dense_ones_are_named_once(by_topic, by_nothing):
    dense = [measure_run(name, seed, False, {}, PERMUTATIONS) for name in ("dense", "dense 2x") for seed in range(2)]
    found = lines_of([*by_topic, *by_nothing, *dense])
    assert [line for line in found[""] if "no experts" in line] == [
        "dense, dense 2x: no experts, so there is nothing that they could follow"
    ]
    for question in set(found) - {""}:
        assert [line.partition(":")[0] for line in found[question]] == ["planted", "random †"]
    assert sum(line.startswith("† ") for line in found[""]) == 1
    assert not any("†" in line for of_one in lines_of(by_topic).values() for line in of_one)
    assert lines_of(dense) == {"": [found[""][0]]}


def test_too_few_permutations_for_the_family_are_said(by_topic, by_nothing):
    assert not any("too few" in line for line in lines_of([*by_topic, *by_nothing], 79)[""])
    (line,) = [line for line in lines_of([*by_topic, *by_nothing], 78)[""] if "too few" in line]
    assert line.startswith("78 permutations are too few for 4 tests") and line.endswith("--permutations 1000")


def test_experts_that_take_every_token_are_weighted_by_the_gate():
    probe = planted_trace(np.random.default_rng(3), top=4)
    run = measure_run("all", 0, False, {0: probe}, 19)
    by_gate = {(r.label, r.given): r.measured.value for r in information_rows([probe], "gate", 19)}
    assert run.by == "gate"
    assert {(r.label, r.given): r.measured.value for r in run.rows} == pytest.approx(by_gate)
    assert any(line.endswith("by the gate: all") for line in sentences(points_of([run]), 19))
    assert measure_run("top 2", 0, False, {0: planted_trace(np.random.default_rng(3), top=2)}, 19).by == "picks"


def test_seeds_of_different_layers_are_refused(by_topic):
    other = replace(by_topic[1], rows=by_topic[1].rows[1:])
    with pytest.raises(DataError, match="different layers or labels"):
        points_of([by_topic[0], other])


def test_files_hold_every_digit_and_the_sentences(by_topic, by_nothing, tmp_path):
    found = points_of([*by_topic, *by_nothing])
    lines = list(sentences(found, PERMUTATIONS))
    markdown, csv = write_report(found, [], lines, tmp_path / "new" / "folder")
    read = pd.read_csv(io.StringIO(csv.read_text(encoding="utf-8")), keep_default_na=False)
    frame = to_frame(found)
    assert read["excess"].tolist() == frame["excess"].tolist()
    assert read["label"].tolist() == frame["label"].tolist() and set(read["leaks"]) == {True, False}
    text = markdown.read_text(encoding="utf-8")
    assert all(line.strip() in text for line in lines)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(frame) and len({line.count("|") for line in rows}) == 1
