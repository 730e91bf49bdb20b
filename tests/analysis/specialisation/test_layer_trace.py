from dataclasses import replace

import numpy as np
import pytest

from moe_study.analysis.specialisation.layer_trace import assignments, combined, first_documents, position_label
from moe_study.errors import DataError
from tests.analysis.specialisation import naive


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_weights_of_a_token_sum_to_one_and_agree_with_loops(trace, by):
    found = assignments(trace, by)
    expected = naive.weights(trace, by)
    assert list(zip(found.token_P.tolist(), found.expert_P.tolist(), strict=True)) == [e[:2] for e in expected]
    assert found.weight_P == pytest.approx([e[2] for e in expected], abs=1e-12)
    assert np.bincount(found.token_P, found.weight_P)[found.routed_T[: found.token_P.max() + 1]] == pytest.approx(1)


def test_dropped_picks_can_be_left_out(trace):
    kept_P = np.arange(len(trace.expert_P)) % 3 > 0
    found = assignments(replace(trace, kept_P=kept_P), kept_only=True)
    assert len(found.expert_P) == kept_P.sum()
    assert np.bincount(found.token_P, found.weight_P)[np.unique(found.token_P)] == pytest.approx(1)


def test_a_token_with_no_gate_mass_has_no_say(trace):
    weight_P = trace.weight_P.copy()
    weight_P[trace.token_of_P == 5] = 0
    assert not assignments(replace(trace, weight_P=weight_P), "gate").routed_T[5]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: {"position_T": t.position_T[1:]}, "position_T has not one value for each of the 1,200 tokens"),
        (lambda t: {"kept_P": t.kept_P[1:]}, "kept_P has not one value for each"),
        (lambda t: {"start_T1": t.start_T1[::-1]}, "start_T1 does not run from 0"),
        (lambda t: {"experts": 2}, "a pick has no such expert"),
        (lambda t: {"document_T": t.document_T - 1}, "a document has a negative number"),
        (lambda t: {"document_labels": {"x": (np.zeros(3, int), ("a",))}}, "label x has not one value for each docu"),
        (lambda t: {"token_labels": {"x": (t.token_T, ("a",))}}, "a code of the label x has no name"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(trace, change, sentence):
    with pytest.raises(DataError, match=sentence):
        replace(trace, **change(trace))


def test_unknown_labels_and_weightings_are_refused_with_what_there_is(trace):
    with pytest.raises(DataError, match="no label 'genre'; it has language, topic, part of speech, position"):
        trace.label("genre")
    with pytest.raises(DataError, match="documents of the trace have no label 'position'; they have lang"):
        trace.document_label("position")
    with pytest.raises(DataError, match="weighted by picks or gate, not by 'mass'"):
        assignments(trace, "mass")
    with pytest.raises(DataError, match="a gate weight is negative"):
        assignments(replace(trace, weight_P=-trace.weight_P), "gate")


def test_positions_are_binned_by_powers_of_two():
    codes, names = position_label(np.arange(17))
    assert names == ("0", "1", "2-3", "4-7", "8-15", "16-31")
    assert [names[code] for code in codes[[0, 1, 2, 3, 4, 7, 8, 15, 16]]] == [
        *["0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "8-15", "16-31"]
    ]


def test_first_documents_are_whole_and_keep_their_picks_and_labels(trace):
    for tokens in (1, 30, 31, 500, len(trace.token_T), 10**6):
        cut = first_documents(trace, tokens)
        documents = min(-(-tokens // 30), trace.documents)  # of 30 tokens each
        here_T = trace.document_T < documents
        assert cut.documents == documents and len(cut.token_T) == here_T.sum() >= min(tokens, len(trace.token_T))
        here_P = here_T[trace.token_of_P]
        np.testing.assert_array_equal(cut.expert_P, trace.expert_P[here_P])
        np.testing.assert_array_equal(cut.weight_P, trace.weight_P[here_P])
        np.testing.assert_array_equal(cut.picks_T, trace.picks_T[here_T])
        for name in ("topic", "part of speech"):
            np.testing.assert_array_equal(cut.label(name)[0], trace.label(name)[0][here_T])


@pytest.mark.parametrize("largest", [3, 2**40])
def test_combined_codes_number_the_combinations_in_their_order(random, largest):
    codes = [random.integers(low, 4, size=200) for low in (0, -1, 2)]
    codes[0] = codes[0] * largest - 2
    expected = np.unique(np.stack(codes), axis=1, return_inverse=True)[1]
    np.testing.assert_array_equal(combined(*codes), expected.ravel())
    assert combined(np.zeros(0, dtype=int), np.zeros(0, dtype=int)).tolist() == []
