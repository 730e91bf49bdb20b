"""The fast tables against `information`, which test_information.py holds against loops."""

import numpy as np
import pytest

from moe_study.analysis.specialisation.exchanges import DocumentExchange, DocumentTurn, GroupExchange
from moe_study.analysis.specialisation.information import information, labelled
from moe_study.analysis.specialisation.layer_trace import assignments
from moe_study.analysis.specialisation.nulls import _document_nats
from moe_study.analysis.specialisation.tables import BlockTables, DocumentTables, Rows, TurnTables, recombined

EXACT = pytest.approx


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_tables_of_documents_agree_for_every_draw(trace, by):
    codes_D, names = trace.document_label("topic")
    picks = labelled(assignments(trace, by), codes_D[trace.document_T])
    exchange = DocumentExchange(codes_D, 5)
    draws_RD = np.stack([codes_D, *(exchange.draw() for _ in range(5))])
    fast = DocumentTables(picks, trace.token_T, trace.document_T, len(names)).nats(draws_RD)
    slow = [information(trace, draw_D[trace.document_T], trace.token_T, by).nats for draw_D in draws_RD]
    assert fast == EXACT(slow, abs=1e-9)

    cells_DE = picks.table(trace.document_T, trace.documents)
    fast = _document_nats(draws_RD, len(names), cells_DE[:, None, :])
    assert fast == EXACT([information(trace, d[trace.document_T], by=by).nats for d in draws_RD], abs=1e-9)


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_blocks_of_two_draws_make_the_information_of_the_labels_they_make(trace, random, by):
    codes_T, names = trace.label("part of speech")
    picks = labelled(assignments(trace, by), codes_T)
    exchange = GroupExchange(codes_T, trace.token_T, trace.document_T, 5, alike=True)
    draws_MT = np.stack([exchange.draw() for _ in range(3)])
    table = BlockTables(picks, trace.token_T, len(names), np.random.default_rng(1))
    parts = [np.stack(part) for part in zip(*(table.draw(draw_T) for draw_T in draws_MT), strict=True)]
    choice_NB = random.integers(3, size=(4, table.blocks))
    fast = table.nats(*(recombined(part, choice_NB) for part in parts))
    for choice_B, (alone, given) in zip(choice_NB, fast, strict=True):
        made_T = np.where(codes_T == -1, -1, 0)
        made_T[table.rows.token_P] = draws_MT[choice_B[table.block_P], table.rows.token_P]
        assert alone == EXACT(information(trace, made_T, by=by).nats, abs=1e-9)
        assert given == EXACT(information(trace, made_T, trace.token_T, by).nats, abs=1e-9)
        assert Rows(picks, trace.token_T).nats(made_T, len(names)) == EXACT(given, abs=1e-9)


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_blocks_of_turns_make_the_information_of_the_ids_they_make(trace, random, by):
    picks = assignments(trace, by)
    exchange = DocumentTurn(trace.token_T, trace.document_T, 5)
    draws_MT = np.stack([exchange.draw() for _ in range(3)])
    table = TurnTables(picks, trace.token_T, trace.document_T, np.random.default_rng(1))
    assert table.blocks == 8
    parts = np.stack([table.draw(draw_T) for draw_T in draws_MT])
    for choice_B in random.integers(3, size=(4, table.blocks)):
        made_T = trace.token_T.copy()
        made_T[table.token_P] = draws_MT[choice_B[table.block_P], table.token_P]
        fast = table.nats(recombined(parts, choice_B[None])[0])
        assert fast == EXACT(information(trace, made_T, by=by).nats, abs=1e-9)
