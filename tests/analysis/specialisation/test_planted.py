"""Each measure finds what was planted and nothing else, however tastes of documents look like it."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation.nulls import document_label
from moe_study.analysis.specialisation.rows import information_rows
from moe_study.analysis.statistics import t_interval
from tests.analysis.specialisation.planted_routes import FOLLOWED, planted_trace
from tests.part import every

LEVEL = 0.05


def measured(trace, seed, permutations):
    """{(label, what is given): its measure}."""
    rows = information_rows([trace], permutations=permutations, seed=seed)
    return {(row.label, row.given): row.measured for row in rows}


def about(follow):
    """The measures that must find routes which follow this."""
    return {
        "language": {("language", ""), ("language", "topic"), ("language", "token id")},
        "topic": {("topic", ""), ("topic", "language"), ("topic", "token id")},
        "part of speech": {("part of speech", ""), ("part of speech", "token id")},
        "position": {("position", ""), ("position", "token id")},
        "token id": {("token id", "")},
        "nothing": set(),
    }[follow]


@pytest.mark.parametrize("follow", every(2, FOLLOWED))
def test_what_was_planted_is_found_and_nothing_else(follow):
    cases = 8
    found, excess = defaultdict(int), defaultdict(list)
    for case in range(cases):
        trace = planted_trace(np.random.default_rng(case), follow, strength=1.2, taste=0.5)
        for key, each in measured(trace, case, permutations=99).items():
            found[key] += each.p <= LEVEL
            excess[key].append(each.excess)
    expected = about(follow)
    # Where routes follow the part of speech, a word that is mostly a verb goes where verbs go: the token id tells.
    implied = {("token id", "")} if follow == "part of speech" else set()
    assert len(found) == 11
    for key, times in found.items():
        if key in expected:
            assert times >= 7 and np.mean(excess[key]) > 0.02, key
        elif key not in implied:
            assert times <= 3 and abs(np.mean(excess[key])) < 0.01, key


def test_topic_is_not_vocabulary_in_disguise():
    """Routes follow the token id, and topics have words of their own: given the token id nothing is left of topic."""
    alone, given = [], []
    for case in range(20):
        trace = planted_trace(np.random.default_rng(case), "token id", strength=2.0, topical=0.6, vocabulary=48)
        found = measured(trace, case, permutations=99)
        alone.append((found["topic", ""].p, found["topic", ""].excess))
        given.append((found["topic", "token id"].p, found["topic", "token id"].excess))
    (p_alone, excess_alone), (p_given, excess_given) = np.transpose(alone), np.transpose(given)
    assert np.mean(p_alone <= LEVEL) > 0.7 and excess_alone.mean() > 0.005
    assert np.mean(p_given <= LEVEL) < 0.2
    assert abs(excess_given.mean()) < 4 * stats.sem(excess_given)


def test_a_label_within_another_is_told_from_it():
    """Routes follow the language, and each language has topics of its own: topic is found, but not within language."""
    random = np.random.default_rng(0)
    trace = planted_trace(random, "language", strength=2.0, documents=60, languages=2, topics=4)
    language_D, _ = trace.document_label("language")
    labels = {**trace.document_labels, "topic": (language_D * 2 + random.integers(2, size=60), tuple("abcd"))}
    found = measured(replace(trace, document_labels=labels), 0, permutations=199)
    assert found["topic", ""].p == 1 / 200
    assert found["topic", "language"].p > 0.05
    assert np.isclose(found["language", "topic"].nats, 0, atol=1e-12)  # a topic tells the language


def random_case(random):
    """A trace whose routes mean nothing, in a setting drawn at random; documents have tastes in three of four."""
    return planted_trace(
        random,
        taste=float(random.choice([0, 0.5, 1, 2])),
        documents=int(random.integers(20, 60)),
        length=int(random.integers(15, 40)),
        ragged=bool(random.integers(2)),
        topical=float(random.choice([0, 0.4])),
        experts=int(random.choice([2, 4, 8])),
        top=int(random.integers(1, 3)),
        speech_by_document=bool(random.integers(2)),
        languages=int(random.integers(2, 5)),
        topics=int(random.integers(2, 5)),
    )


def false_positives(make, cases, permutations):
    """{measure: share of the cases that it finds something in at a nominal 5%}."""
    found = defaultdict(list)
    for case in range(cases):
        trace = make(np.random.default_rng(10_000 + case))
        for key, each in measured(trace, case, permutations).items():
            found[key].append(each.p <= LEVEL)
    return {key: float(np.mean(each)) for key, each in found.items()}


def with_taste(random):
    return planted_trace(random, taste=1.0)


@pytest.mark.long
def test_tastes_of_documents_are_not_taken_for_labels():
    cases = 40
    allowed = LEVEL + 4 * np.sqrt(LEVEL * (1 - LEVEL) / cases)
    rates = false_positives(with_taste, cases, permutations=119)
    assert len(rates) == 11 and all(rate <= allowed for rate in rates.values()), rates


def test_labels_exchanged_between_tokens_would_take_tastes_for_labels():
    """The trap that the nulls avoid, so that the test above is known to be able to fail."""
    fooled = []
    for case in range(20):
        random = np.random.default_rng(case)
        trace = planted_trace(random, taste=1.0)
        topic_T = trace.label("topic")[0]
        by_tokens = replace(
            trace,
            document_T=np.arange(len(topic_T)),  # every token a document of its own
            document_labels={"topic": (topic_T, trace.label("topic")[1])},
        )
        fooled.append(document_label([by_tokens], "topic", permutations=99)[0].p <= LEVEL)
    assert np.mean(fooled) > 0.6


@pytest.mark.simulation
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("make", [with_taste, random_case])
def test_false_positives_are_at_most_6_in_100_over_4000_cases(make):
    rates = false_positives(make, 4000, permutations=199)
    print(rates)
    assert all(rate <= 0.06 for rate in rates.values()), rates


def excess_over_seeds(runs):
    """Excess for many routers over one probe, whose logits by language and tastes are drawn anew for each."""
    random = np.random.default_rng(3)
    probe = planted_trace(random, documents=60, length=40, languages=4)
    language_T = probe.label("language")[0]

    def run():
        logits_TE = random.normal(size=(4, 4))[language_T] + 0.5 * random.normal(size=(60, 4))[probe.document_T]
        return replace(probe, expert_P=(logits_TE + random.gumbel(size=logits_TE.shape)).argmax(1))

    return np.array([document_label([run()], "language", permutations=99)[0].excess for _ in range(runs)])


def covered(excess_SN, truth):
    _, _, low, high = t_interval(excess_SN)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.simulation
@pytest.mark.timeout(3600)
def test_intervals_over_seeds_hold_the_mean_excess_in_93_to_97_of_100():
    excess = excess_over_seeds(8000)
    rate = covered(excess[:5000].reshape(1000, 5), excess.mean())
    print(rate)
    assert 0.93 <= rate <= 0.97


@pytest.mark.long
def test_intervals_over_seeds_hold_the_mean_excess():
    excess = excess_over_seeds(400)
    assert covered(excess.reshape(80, 5), excess.mean()) > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 80)
