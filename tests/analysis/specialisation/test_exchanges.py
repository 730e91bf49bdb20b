import numpy as np
import pytest

from moe_study.analysis.specialisation.exchanges import DocumentExchange, DocumentTurn, GroupExchange


def test_documents_exchange_labels_within_strata_and_keep_missing_ones(random):
    codes_D, strata_D = random.integers(-1, 3, size=60), random.integers(2, size=60)
    exchange = DocumentExchange(codes_D, 0, strata_D)
    draws = np.stack([exchange.draw() for _ in range(50)])
    assert np.all((draws == -1) == (codes_D == -1))
    for stratum in (0, 1):
        assert np.all(np.sort(draws[:, strata_D == stratum]) == np.sort(codes_D[strata_D == stratum]))
    assert len(np.unique(draws, axis=0)) == 50
    assert exchange.movable == 1
    assert DocumentExchange(codes_D, 0, np.arange(60)).movable == 0


def groups_of(trace, codes_T):
    found = {}
    for token, (value, document) in enumerate(zip(trace.token_T, trace.document_T, strict=True)):
        if codes_T[token] >= 0:
            found.setdefault((int(value), int(document)), []).append(token)
    return found


@pytest.mark.parametrize("alike", [True, False])
def test_groups_take_the_labels_of_a_group_of_their_token_id_whole(trace, alike):
    codes_T, _ = trace.label("part of speech")
    groups = groups_of(trace, codes_T)
    marked_T = np.arange(len(codes_T))  # every token its own label: shows where a draw takes it from
    exchange = GroupExchange(np.where(codes_T < 0, -1, marked_T), trace.token_T, trace.document_T, 3, alike)
    partners = {key: set() for key in groups}
    for _ in range(120):
        draw_T = exchange.draw()
        assert np.all((draw_T == -1) == (codes_T == -1))
        for (value, document), tokens in groups.items():
            taken = draw_T[tokens]
            assert set(trace.token_T[taken]) == {value}
            (source,) = set(trace.document_T[taken])
            source_tokens = groups[value, source]
            assert np.all(taken == np.resize(source_tokens, len(tokens)))  # in order; cut, or begun again
            assert max(len(tokens), len(source_tokens)) < 1.5 * min(len(tokens), len(source_tokens)) + 1e-9
            partners[value, document].add(source)
    shared = [len(found) > 1 for found in partners.values()]
    weight = [len(groups[key]) for key in partners]
    assert np.average(shared, weights=weight) == pytest.approx(exchange.movable)
    assert exchange.movable > 0.8


def test_every_group_of_a_ring_is_equally_often_the_source():
    document_T = np.arange(5)
    exchange = GroupExchange(np.arange(5), np.zeros(5, dtype=int), document_T, 0, alike=True)
    draws = np.stack([exchange.draw() for _ in range(4000)])
    assert np.all(np.sort(draws, axis=1) == np.arange(5))
    counts = np.stack([np.bincount(column, minlength=5) for column in draws.T])
    assert np.all(np.abs(counts - 800) < 5 * np.sqrt(4000 * 0.2 * 0.8))


def test_documents_of_unlike_length_trade_no_labels_of_tokens():
    document_T = np.repeat([0, 1, 2, 3], [2, 2, 20, 20])
    exchange = GroupExchange(np.arange(44), np.arange(44) % 2, document_T, 0, alike=True)
    for _ in range(30):
        source = document_T[exchange.draw()]
        assert np.all((source >= 2) == (document_T >= 2))


def test_a_turn_moves_each_document_round_within_itself(trace):
    exchange = DocumentTurn(np.arange(len(trace.token_T)), trace.document_T, 0)
    for _ in range(20):
        draw_T = exchange.draw()
        for document in range(trace.documents):
            here = np.flatnonzero(trace.document_T == document)
            start = int(np.flatnonzero(here == draw_T[here[0]])[0])
            assert np.all(draw_T[here] == np.roll(here, -start))
