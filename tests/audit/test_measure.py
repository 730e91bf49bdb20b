"""Planted leaks are caught, each in its own column and at its own position; causal functions are not flagged."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moe_study.audit.measure import TOLERANCE, Draw, Finding, Function, Measured, measure
from moe_study.design.verdict import Verdict

ROWS, LENGTH = 4, 24


def embed(tokens_BT: Tensor) -> Tensor:
    """Fixed values of every token, (B, T, 4)."""
    table = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return table[tokens_BT]


def causal(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT).cumsum(1) + label_B.view(-1, 1, 1)


def next_token(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT) + embed(tokens_BT).roll(-1, 1)


def last_token_from(position: int) -> Function:
    def function(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
        reached_T1 = (torch.arange(tokens_BT.shape[1]) >= position).unsqueeze(1)
        return embed(tokens_BT) + embed(tokens_BT)[:, -1:] * reached_T1

    return function


def next_token_behind_a_stop_gradient(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    """The future decides and is not differentiated: its gradient is exactly zero."""
    return embed(tokens_BT) * (embed(tokens_BT).roll(-1, 1).sum(2, keepdim=True) > 0)


def other_rows_future(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT) + embed(tokens_BT)[:, -1:].roll(1, 0)


def other_rows_same_position(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT) + embed(tokens_BT).mean(0, keepdim=True)


def other_rows_label(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT) + label_B.roll(1).view(-1, 1, 1)


def rare(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    """Leaks at one position, and only when the last token is one of eight."""
    leak_B = (tokens_BT[:, -1] % 8 == 0).double()
    out_BTV = embed(tokens_BT)
    out_BTV[:, 5:6] += leak_B.view(-1, 1, 1)
    return out_BTV


def by_length(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
    return embed(tokens_BT) / tokens_BT.shape[1]


def run(function: Function, trials: int = 24) -> Measured:
    found = Measured()
    for trial in range(trials):
        found |= measure(function, Draw(ROWS, LENGTH, tokens_per_row=8, seed=trial))
    return found


@pytest.mark.parametrize(
    ("function", "expected", "first"),
    [
        (causal, Verdict(), None),
        (next_token, Verdict(own_future=True), 0),
        (next_token_behind_a_stop_gradient, Verdict(own_future=True), 0),
        (last_token_from(9), Verdict(own_future=True), 9),
        (rare, Verdict(own_future=True), 5),
        (other_rows_future, Verdict(others_future=True, mixes_batch=True), 0),
        (other_rows_same_position, Verdict(mixes_batch=True), None),
        (other_rows_label, Verdict(mixes_batch=True), None),
    ],
)
def test_each_kind_of_leak_is_told_apart(function: Function, expected: Verdict, first: int | None) -> None:
    measured = run(function)
    assert measured.verdict == expected
    assert measured.first_leak == first


def test_dependence_on_the_length_is_no_leak_but_is_seen() -> None:
    measured = run(by_length)
    assert measured.verdict == Verdict()
    assert measured.truncation.leaks
    assert not run(causal).truncation.leaks


@pytest.mark.parametrize(("change", "leaks"), [(TOLERANCE / 10, False), (TOLERANCE * 10, True)])
def test_what_is_smaller_than_the_tolerance_is_noise(change: float, leaks: bool) -> None:
    def function(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
        return embed(tokens_BT) + change * (tokens_BT[:, -1:, None] % 2)

    assert run(function).own_future.leaks is leaks


def test_an_output_that_is_not_finite_is_refused() -> None:
    broken: Callable[[Tensor, Tensor], Tensor] = lambda tokens_BT, label_B: embed(tokens_BT) / 0  # noqa: E731
    with pytest.raises(FloatingPointError):
        run(broken, trials=1)


def test_findings_join_to_the_largest_change_and_the_earliest_position() -> None:
    assert Finding(0.5, 7) | Finding(2.0, None) | Finding(1.0, 3) == Finding(2.0, 3)


def test_rows_never_share_a_token_but_the_end_of_text() -> None:
    draw = Draw(ROWS, LENGTH, tokens_per_row=8, seed=0, end_of_text=32)
    for _ in range(20):
        tokens_BT = draw.tokens()
        own_BT = torch.arange(ROWS).unsqueeze(1).expand(-1, LENGTH)
        ends_BT = tokens_BT == 32
        assert (tokens_BT // 8 == own_BT)[~ends_BT].all()
        assert not (ends_BT[:, 1:] & ends_BT[:, :-1]).any()
