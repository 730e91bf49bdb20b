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


@pytest.mark.parametrize("alike", [True, False])
def test_groups_take_the_labels_of_a_group_of_their_token_id_whole(trace, alike):
    codes_T, _ = trace.label("part of speech")
    marked_T = np.arange(len(codes_T))  # every token its own label: shows where a draw takes it from
    exchange = GroupExchange(np.where(codes_T < 0, -1, marked_T), trace.token_T, trace.document_T, 3, alike)
    labelled = np.flatnonzero(codes_T >= 0)
    token_U, document_U = trace.token_T[labelled], trace.document_T[labelled]
    # Of each labelled token its group, and its place in it; of each group G its size, and where its labels came from.
    _, first_G, group_U, size_G = np.unique(
        np.stack([token_U, document_U]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    place_U = np.array([np.sum(group_U[:u] == group_U[u]) for u in range(len(group_U))])
    sources = []
    for _ in range(120):
        draw_T = exchange.draw()
        assert np.all((draw_T == -1) == (codes_T == -1))
        taken_U = np.searchsorted(labelled, draw_T[labelled])
        source_G = group_U[taken_U[first_G]]
        assert np.all(token_U[taken_U] == token_U)
        assert np.all(group_U[taken_U] == source_G[group_U])
        assert np.all(place_U[taken_U] == place_U % size_G[source_G][group_U])  # in order; cut, or begun again
        assert np.all(np.maximum(size_G, size_G[source_G]) < 1.5 * np.minimum(size_G, size_G[source_G]) + 1e-9)
        sources.append(source_G)
    shared_G = np.any(np.stack(sources) != sources[0], axis=0)
    assert np.average(shared_G, weights=size_G) == pytest.approx(exchange.movable)
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
