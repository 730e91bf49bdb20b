"""What an expert is about, on traces with known routes, against loops."""

from pathlib import Path

import numpy as np
import pytest

from moe_study.data.tokenizers import ByteTokenizer
from moe_study.errors import StudyError
from moe_study.posthoc.profile import domain_profile, expert_profile
from moe_study.runs.traces import RoutesPart, Trace, TraceIdentity, find_trace, write_trace

TEXTS = ("aab aab aac", "xxy xxy xaz", "bbb aaa bbb")
LANGUAGES = [0, 1, 0]


def made(folder: Path, picks: list[list[int]], weights: list[list[float]] | None = None) -> Trace:
    """A trace of TEXTS in which token t has those experts."""
    identity = TraceIdentity("k", None, "made", "f" * 64)
    token_T = np.frombuffer("".join(TEXTS).encode(), np.uint8).astype(np.int64)
    nan_T = np.full(len(token_T), np.nan)
    with write_trace(folder, identity) as writer:
        writer.facts = {"window": 8}
        writer.add_probe(token_T, np.array([0, 11, 22, 33]), {"language": (np.array(LANGUAGES), ("de", "en"))}, {})
        writer.add_loss(nan_T)
        writer.add_layer(2, 3, 2)
        flat = np.concatenate([np.array(chosen, int) for chosen in picks])
        weight_P = np.ones(len(flat)) if weights is None else np.concatenate([np.array(part) for part in weights])
        count_T = np.array([len(chosen) for chosen in picks])
        writer.add_routes(2, RoutesPart(count_T, flat, weight_P, None, nan_T, nan_T))
    trace = find_trace(folder, identity)
    assert trace is not None
    return trace


def by_letter() -> list[list[int]]:
    """Expert 0 takes a; 1 takes x and half of b; 2 the other half of b and all else."""
    return [{"a": [0], "x": [1], "b": [1, 2]}.get(letter, [2]) for letter in "".join(TEXTS)]


def test_shares_and_lifts_of_domains_and_tokens_are_those_of_a_loop(tmp_path: Path) -> None:
    profile = expert_profile(made(tmp_path, by_letter()), ByteTokenizer(), 2, 1)
    letters = "".join(TEXTS)
    parts = [1.0 if letter == "x" else 0.5 if letter == "b" else 0.0 for letter in letters]
    share = sum(parts) / len(letters)
    assert profile.share == pytest.approx(share) and profile.tokens == pytest.approx(sum(parts))
    for preference in profile.domains:
        places = [n for n in range(33) if ("de", "en", "de")[n // 11] == preference.name]
        count = sum(parts[n] for n in places)
        assert preference.count == pytest.approx(count)
        assert preference.lift == pytest.approx(count / len(places) / share)
    assert [(row.name, row.count) for row in profile.favourites] == [("x", 5.0), ("b", 4.0)]
    assert profile.contexts[0] == (b"x", b"x", b"y xxy xa") and profile.contexts[1][1] == b"b"


def test_a_domain_ranks_experts_by_lift(tmp_path: Path) -> None:
    trace = made(tmp_path, by_letter())
    rows = domain_profile(trace, "en")[2]
    assert [row.name for row in rows] == ["1", "2", "0"]
    assert sum(row.share for row in rows) == pytest.approx(1) and sum(row.count for row in rows) == pytest.approx(11)
    with pytest.raises(StudyError, match="has the value 'fr'; it has language: de, en"):
        domain_profile(trace, "fr")
    assert domain_profile(trace, "EN")[2] == rows


def test_where_every_expert_has_a_weight_tokens_are_split_by_it(tmp_path: Path) -> None:
    weights = [[0.5, 0.25, 0.25] if n < 11 else [0.0, 0.0, 2.0] for n in range(33)]
    trace = made(tmp_path, [[0, 1, 2]] * 33, weights)
    profile = expert_profile(trace, ByteTokenizer(), 2, 0)
    assert profile.tokens == pytest.approx(5.5) and profile.domains[0].name == "de"
    assert profile.domains[0].lift == pytest.approx((5.5 / 22) / (5.5 / 33))


def test_an_expert_that_takes_nothing_has_no_favourites(tmp_path: Path) -> None:
    profile = expert_profile(made(tmp_path, [[0]] * 33), ByteTokenizer(), 2, 1)
    assert profile.share == 0 and profile.favourites == [] and profile.contexts == []
