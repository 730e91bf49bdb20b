"""Tokens that go elsewhere than a router by language sends them: planted routes whose exceptions are known."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.results.elsewhere import (
    collect,
    elsewhere_text,
    matched_experts,
    rows_of_counts,
    rows_of_layer,
    sentences,
)
from moe_study.analysis.results.measure import Kept
from moe_study.runs.activations import COLUMNS
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import RoutesPart, TraceIdentity, find_trace, write_trace

DOCUMENTS, LENGTH, LANGUAGES = 12, 10, ("de", "en", "fr")


def leave_trace(folder, expert_TK, experts=4, *, kept_P=None, language_D=None):
    """A trace of 12 documents of ten tokens, by turns in three languages, with the picks (tokens, k) of one layer."""
    identity = TraceIdentity(folder.key, None, "wiki", "1" * 64)
    tokens, k = expert_TK.shape
    with write_trace(folder.traces_folder, identity) as writer:
        writer.facts = {"window": LENGTH}
        languages = {"language": (np.arange(DOCUMENTS) % 3 if language_D is None else language_D, LANGUAGES)}
        starts = np.arange(0, tokens + 1, LENGTH)
        writer.add_probe(np.arange(tokens) % 7, starts, languages, {"tag": (np.arange(tokens) % 2, ("odd", "even"))})
        writer.add_loss(np.full(tokens, 2.0))
        writer.add_layer(3, experts, 3)
        flat = expert_TK.reshape(-1)
        nan = np.full(tokens, np.nan)
        writer.add_routes(3, RoutesPart(np.full(tokens, k), flat, np.full(len(flat), 1 / k), kept_P, nan, nan))
    return find_trace(folder.traces_folder, identity)


def by_language(first_elsewhere=2):
    """The language's expert (de: 2, en: 0, fr: 3), but at the first positions another."""
    language_T = np.repeat(np.arange(DOCUMENTS) % 3, LENGTH)
    position_T = np.tile(np.arange(LENGTH), DOCUMENTS)
    own_T = np.array([2, 0, 3])[language_T]
    other_T = np.array([0, 3, 2])[language_T]
    return np.where(position_T < first_elsewhere, other_T, own_T)[:, None]


def test_a_token_is_where_its_language_is_as_soon_as_one_pick_is(tmp_path):
    own = by_language(0)
    trace = leave_trace(RunFolder(tmp_path / "a"), np.concatenate([own, (own + 1) % 4], axis=1))
    assert next(rows_of_layer(trace, 3))["elsewhere"] == 0


def test_what_a_capacity_dropped_goes_elsewhere_as_it_does_in_counts(tmp_path):
    kept_P = np.arange(DOCUMENTS * LENGTH) % 4 > 0
    trace = leave_trace(RunFolder(tmp_path / "a"), by_language(0), kept_P=kept_P)
    assert next(rows_of_layer(trace, 3))["elsewhere"] == pytest.approx(0.25)


def test_nothing_is_said_of_documents_without_a_language(tmp_path):
    trace = leave_trace(RunFolder(tmp_path / "a"), by_language(), language_D=np.full(DOCUMENTS, -1))
    assert list(rows_of_layer(trace, 3)) == []


def test_experts_are_dealt_out_so_that_most_tokens_have_theirs_whatever_one_language_prefers():
    has_DE = np.array([[9.0, 0, 8], [0, 1, 7], [9, 0, 8]])
    assert matched_experts(np.array([0, 1, 0]), has_DE, 2).tolist() == [0, 2]
    assert sorted(matched_experts(np.array([0, 1, 2]), has_DE[:, :2], 3).tolist()) == [-1, 0, 1]  # one has none left


def test_the_experts_dealt_out_are_the_best_of_all_ways_to_deal_them():
    random = np.random.default_rng(1)
    for languages, experts in ((3, 4), (4, 4), (3, 2), (1, 3), (2, 1)):
        has_DE, codes_D = random.integers(0, 50, (9, experts)).astype(float), np.arange(9) % languages
        table_LE = np.array([has_DE[codes_D == language].sum(0) for language in range(languages)])
        of_language = [*range(experts), *[-1] * max(0, languages - experts)]
        best = max(
            sum(table_LE[language, one] for language, one in enumerate(way) if one >= 0)
            for way in itertools.permutations(of_language, languages)
        )
        found_L = matched_experts(codes_D, has_DE, languages)
        assert sum(table_LE[language, one] for language, one in enumerate(found_L) if one >= 0) == best


def test_known_exceptions_are_found_where_they_are(tmp_path):
    rows = pd.DataFrame(rows_of_layer(leave_trace(RunFolder(tmp_path / "a"), by_language()), 3))
    whole = rows[rows["by"] == "all"].iloc[0]
    assert (whole["elsewhere"], whole["tokens"], whole["layer"]) == (pytest.approx(0.2), 120, 3)
    assert whole["p"] == pytest.approx(0.01) and 0.3 < whole["chance"] < 0.7
    place = rows[rows["by"] == "position"].set_index("name")["elsewhere"]
    assert place.to_dict() == {"0": 1.0, "1": 1.0, "2-3": 0.0, "4-7": 0.0, "8-15": 0.0}
    language = rows[rows["by"] == "language"].set_index("name")["elsewhere"]
    assert language.to_dict() == pytest.approx(dict.fromkeys(LANGUAGES, 0.2))
    assert set(rows["by"]) == {"all", "language", "tag", "position", "frequency"}


def test_routes_that_know_nothing_of_language_are_at_chance(tmp_path):
    random = np.random.default_rng(0)
    trace = leave_trace(RunFolder(tmp_path / "a"), random.integers(0, 4, (DOCUMENTS * LENGTH, 1)))
    (whole,) = [row for row in rows_of_layer(trace, 3) if row["by"] == "all"]
    assert whole["p"] > 0.05 and whole["elsewhere"] == pytest.approx(whole["chance"], abs=0.05)


def test_counts_of_the_validation_set_say_the_same_of_the_same_routes(tmp_path):
    """Topics are the halves of documents: elsewhere is the first of them alone."""
    rows = []
    language_T, position_T = np.repeat(np.arange(DOCUMENTS) % 3, LENGTH), np.tile(np.arange(LENGTH), DOCUMENTS)
    for language, half in itertools.product(range(3), range(2)):
        own_T = (language_T == language) & (position_T // 5 == half)
        for expert in range(4):
            count = int((by_language()[own_T, 0] == expert).sum())
            rows.append((0, expert, LANGUAGES[language], ("early", "late")[half], count, count, int(own_T.sum())))
    counts = pd.DataFrame(rows, columns=list(COLUMNS)).sample(frac=1, random_state=0)
    found = pd.DataFrame(rows_of_counts(counts, 0))
    traced = next(rows_of_layer(leave_trace(RunFolder(tmp_path / "a"), by_language()), 3))
    assert found["elsewhere"][0] == pytest.approx(traced["elsewhere"]) and found["tokens"][0] == traced["tokens"]
    assert found["chance"][0] == pytest.approx(2 / 3)  # three experts of one load
    by_topic = found[found["by"] == "topic"].set_index("name")["elsewhere"]
    assert by_topic.to_dict() == pytest.approx({"early": 0.4, "late": 0.0})


def study_of(folders, contexts, selection="top_k", label="language"):
    frame = pd.DataFrame(
        {"key": [one.key for one in folders], "label": ["oracle", "learned", "learned"], "seed": [0, 0, 1],
         "state": "done", "routing.context": contexts, "routing.label": label, "routing.selection": selection,
         "routing.router_state": "learned", "folder": [str(one.path) for one in folders]}
    )  # fmt: skip
    part = SimpleNamespace(name="", frame=frame, runs=frame, leaking=frozenset({"learned"}))
    return SimpleNamespace(parts=[part])


@pytest.fixture
def folders(tmp_path):
    found = [RunFolder(tmp_path / name) for name in ("a", "b", "c")]
    for folder in found:
        leave_trace(folder, by_language())
    return found


def test_it_is_asked_where_a_point_is_routed_by_language_and_of_the_others(folders):
    found = collect(study_of(folders, ["label", "unit_mean", "unit_mean"]))
    assert set(found) == {"", "wiki"} and set(found["wiki"]["key"]) == {"b", "c"}
    assert not len(found[""])  # no run has counts of its validation set
    assert collect(study_of(folders, ["own", "unit_mean", "unit_mean"])) == {}


def test_it_is_not_asked_where_every_token_has_every_expert(folders):
    """What is counted then is rows of experts, which may be more than there are tokens."""
    counts = pd.DataFrame(
        [(0, expert, language, "", 500, 1.0, 100) for expert in range(4) for language in LANGUAGES],
        columns=list(COLUMNS),
    )
    for folder in folders:
        folder.write_activations(counts)
    found = collect(study_of(folders, ["label", "own", "own"], ["top_k", "soft", "top_k"]))
    assert set(found[""]["key"]) == {"c"} and set(found["wiki"]["key"]) == {"c"}


def test_a_router_by_topic_is_no_router_by_language(folders):
    assert collect(study_of(folders, ["label", "own", "own"], label="topic")) == {}


def test_the_share_its_chance_and_its_pattern_are_said(folders):
    study = study_of(folders, ["label", "unit_mean", "unit_mean"])
    kept = Kept(collect(study)["wiki"], study, "wiki")
    (said,) = sentences(kept)
    assert said.startswith("learned † sends 0.200 [0.200, 0.200] of the tokens on wiki elsewhere than")
    assert "by position from 0.00 (2-3) to 1.00 (1)" in said and "layer 3)" in said
    text = elsewhere_text(kept)
    assert "| learned † | 3 | 0.200 [0.200, 0.200] |" in text and "| 2 of 2 |" in text
    assert "| position | 0 | 1.000 [1.000, 1.000] |" in text
