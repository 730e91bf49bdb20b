import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation.information import entropy, information
from moe_study.analysis.specialisation.layer_trace import assignments
from tests.analysis.specialisation import naive
from tests.analysis.specialisation.planted_routes import planted_trace

LABELS = ("language", "topic", "part of speech", "position")


@pytest.mark.parametrize("by", ["picks", "gate"])
@pytest.mark.parametrize("label", LABELS)
def test_information_agrees_with_loops(trace, label, by):
    codes_T, _ = trace.label(label)
    alone, given = information(trace, codes_T, by=by), information(trace, codes_T, trace.token_T, by)
    assert alone.nats == pytest.approx(naive.information(trace, codes_T, by=by), abs=1e-9)
    assert given.nats == pytest.approx(naive.information(trace, codes_T, trace.token_T, by), abs=1e-9)
    labelled = [codes_T[token] for token, _, _ in naive.weights(trace) if codes_T[token] >= 0]
    weights = [weight for token, _, weight in naive.weights(trace, by) if codes_T[token] >= 0]
    assert alone.label_entropy == pytest.approx(stats.entropy(np.bincount(labelled, weights)), abs=1e-9)
    assert alone.of_label == pytest.approx(alone.nats / alone.label_entropy)
    assert alone.tokens == len({token for token, _, _ in naive.weights(trace) if codes_T[token] >= 0})


def test_an_expert_for_each_label_tells_the_label_and_one_expert_tells_nothing(random):
    trace = planted_trace(random, "topic", strength=1e6, experts=6)
    topic_T = trace.label("topic")[0]
    told = naive.information(trace, topic_T)
    found = information(trace, topic_T)
    assert found.of_label == pytest.approx(told / found.label_entropy)
    assert information(trace, np.asarray(trace.expert_P)).of_label == pytest.approx(1)
    assert information(trace, np.asarray(trace.expert_P)).of_expert == pytest.approx(1)
    assert np.isnan(information(trace, np.zeros(len(topic_T), dtype=int)).of_label)


def test_two_picks_split_a_token_so_information_is_at_most_log_of_experts_over_picks(random):
    trace = planted_trace(random, "nothing", top=2, experts=4)
    told = information(trace, np.arange(len(trace.token_T)))
    assert told.nats == pytest.approx(entropy(np.bincount(trace.expert_P)) - np.log(2))
    assert assignments(trace).unit == 0.5
