"""Bands of the bars, against loops over the same draws and against planted routes."""

import numpy as np
import pytest

from moe_study.analysis.specialisation.domains import shares
from moe_study.analysis.specialisation.exchanges import DocumentExchange, GroupExchange
from moe_study.analysis.specialisation.layer_trace import assignments
from moe_study.analysis.specialisation.share_nulls import MOST_TOKEN_DRAWS, share_nulls
from tests.analysis.specialisation.conftest import without_picks
from tests.analysis.specialisation.planted_routes import planted_trace

DRAWS = 40


@pytest.mark.parametrize("by", ["picks", "gate"])
@pytest.mark.parametrize("name", ["topic", "part of speech"])
def test_bands_are_those_of_naive_loops_over_the_draws(trace, name, by):
    (null,) = share_nulls([trace], name, by, DRAWS, seed=3)
    codes_T, names = trace.label(name)
    if name == "topic":
        exchange = DocumentExchange(trace.document_label(name)[0], 3)
        draws = [exchange.draw()[trace.document_T] for _ in range(DRAWS)]
    else:
        groups = GroupExchange(codes_T, trace.token_T, trace.document_T, 3, alike=True)
        draws = [groups.draw() for _ in range(DRAWS)]
    shares_RLE = np.array([naive_shares(trace, draw_T, len(names), by) for draw_T in draws])
    np.testing.assert_allclose(null.mean_LE, np.nanmean(shares_RLE, axis=0), atol=1e-9)
    np.testing.assert_allclose(null.low_LE, np.nanquantile(shares_RLE, 0.025, axis=0), atol=1e-9)
    np.testing.assert_allclose(null.high_LE, np.nanquantile(shares_RLE, 0.975, axis=0), atol=1e-9)
    assert null.draws == DRAWS


def naive_shares(trace, codes_T, labels, by):
    table = np.zeros((labels, trace.experts))
    picks = assignments(trace, by)
    for token, expert, weight in zip(picks.token_P, picks.expert_P, picks.weight_P, strict=True):
        if codes_T[token] >= 0:
            table[codes_T[token], expert] += weight
    return table / table.sum(1, keepdims=True)


def test_a_planted_label_leaves_its_bands_and_one_that_means_nothing_stays_inside():
    followed = planted_trace(np.random.default_rng(0), "language", 1.5)
    outside = {}
    for name in ("language", "topic"):
        (null,) = share_nulls([followed], name, permutations=400)
        share_LE = shares(followed, name).share_LE
        outside[name] = float(np.mean((share_LE < null.low_LE) | (share_LE > null.high_LE)))
        assert np.all((null.low_LE <= null.mean_LE) & (null.mean_LE <= null.high_LE))
    assert outside["language"] > 0.8 and outside["topic"] < 0.35


def test_layers_of_one_run_have_the_same_draws(random):
    trace = planted_trace(random, "topic", 1.0)
    first, second = share_nulls([trace, trace], "topic", permutations=DRAWS)
    np.testing.assert_array_equal(first.low_LE, second.low_LE)


def test_labels_of_tokens_take_at_most_a_hundred_draws(random):
    (null,) = share_nulls([planted_trace(random)], "part of speech", permutations=1000)
    assert null.draws == MOST_TOKEN_DRAWS


def test_without_picks_or_layers_there_is_no_band(random):
    (null,) = share_nulls([without_picks(planted_trace(random))], "topic", permutations=5)
    assert np.isnan(null.mean_LE).all() and np.isnan(null.low_LE).all()
    assert share_nulls([], "topic") == []
