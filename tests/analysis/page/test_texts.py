from types import SimpleNamespace

import numpy as np

from moe_study.analysis.page.texts import LONGEST, chosen_documents, picks, pieces_of


def test_a_character_of_several_tokens_stands_with_the_last_of_them() -> None:
    euro = "€".encode()
    assert pieces_of([b"a", euro[:1], euro[1:2], euro[2:], b"b"]) == ["a", "", "", "€", "b"]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert "".join(pieces_of([b"\xff", b"a"])) == "\ufffda"


def test_a_token_of_ten_thousand_characters_is_cut_and_says_so() -> None:
    (piece,) = pieces_of([b"x" * 10_000])
    assert piece == f"{'x' * LONGEST}… (10,000 characters)"


def test_documents_are_chosen_so_that_they_have_different_labels() -> None:
    labels = {"topic": (np.array([0, 0, 1, 0, 2]), ("a", "b", "c"))}
    trace = SimpleNamespace(start_D1=np.arange(6) * 200, document_labels=labels)
    assert chosen_documents(trace, 3) == [0, 2, 4]  # type: ignore[arg-type]


def test_documents_that_are_too_short_to_read_are_not_chosen() -> None:
    trace = SimpleNamespace(start_D1=np.array([0, 2, 300, 301]), document_labels={})
    assert chosen_documents(trace, 3) == [1]  # type: ignore[arg-type]


def test_picks_come_largest_first_without_those_that_were_dropped() -> None:
    layer = {
        "start_T1": np.array([0, 3, 3, 5]),
        "expert_P": np.array([4, 7, 1, 2, 0], np.uint8),
        "weight_P": np.array([0.1, 0.3, 0.6, 0.5, 0.5], np.float16),
        "kept_P": np.array([True, True, False, True, True]),
    }
    found = picks(layer, [slice(0, 3)])
    assert found["most"] == 3
    assert found["expert"] == [7, 4, -1, -1, -1, -1, 2, 0, -1]
    assert found["weight"] == [75, 25, 0, 0, 0, 0, 50, 50, 0]
