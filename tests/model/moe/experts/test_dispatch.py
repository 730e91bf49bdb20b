"""Every implementation of the seam against loops over tokens and pairs in float64, on loads that are hard."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.errors import ConfigError
from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.experts import chunked, dispatch
from moe_study.model.moe.experts.chunked import CHUNK, chunked_ffn
from moe_study.model.moe.experts.dispatch import Implementation
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan, make_dispatch_plan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.grouped import grouped_ffn
from moe_study.model.moe.experts.rows import combine, gather
from moe_study.model.moe.routing.gate import RoutingDecision


def small_chunks(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """Chunks of 4 rows, so that most experts have several."""
    with mock.patch.object(chunked, "CHUNK", 4):
        return chunked_ffn(x_ND, plan, experts)


IMPLEMENTATIONS: dict[str, Implementation] = {
    "chunked": chunked_ffn,
    "small chunks": small_chunks,
    "grouped": grouped_ffn,
}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}
EXPERTS, WIDTH, HIDDEN = 5, 8, 12
EIGHT = Experts(8, 8, 8, bias=False)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picks(kind: str) -> RoutingDecision:
    """12 decisions over 5 experts."""
    order_RE = random(12, EXPERTS, seed=1).argsort(1)
    if kind == "top-2":
        return RoutingDecision(order_RE[:, :2], random(12, 2, seed=2))
    if kind == "all to one":
        return RoutingDecision(torch.full((12, 1), 3), random(12, 1, seed=2))
    if kind == "two experts idle":
        return RoutingDecision(torch.where(order_RE[:, :2] < 2, 4, order_RE[:, :2]), random(12, 2, seed=2))
    keep_RE = random(12, EXPERTS, seed=3) > {"any number": 0.0, "none at all": math.inf}[kind]
    return RoutingDecision(order_RE, random(12, EXPERTS, seed=2), keep_RE)


KINDS = ["top-2", "all to one", "two experts idle", "any number", "none at all"]


class Case(NamedTuple):
    x_ND: Tensor
    weight_RK: Tensor
    experts: Experts
    picks: RoutingDecision
    plan: DispatchPlan

    def leaves(self) -> list[Tensor]:
        return [self.x_ND, self.weight_RK, *self.experts.parameters()]


def make(kind: str, block: int, bias: bool, dtype: torch.dtype) -> Case:
    chosen = picks(kind)
    weight_RK = chosen.weight_RK.to(dtype).requires_grad_()
    x_ND = random(12 * block, WIDTH).to(dtype).requires_grad_()
    experts = Experts(EXPERTS, WIDTH, HIDDEN, bias)
    for i, parameter in enumerate(experts.parameters()):
        parameter.data = random(*parameter.shape, seed=10 + i).to(dtype)
    chosen = RoutingDecision(chosen.expert_RK, weight_RK, chosen.keep_RK)
    return Case(x_ND, weight_RK, experts, chosen, make_dispatch_plan(chosen, EXPERTS, block))


def loops(case: Case, block: int) -> Tensor:
    """The definition: for each token and kept pick, weight times the expert's network."""
    experts, mask_RK = case.experts, case.picks.mask()
    rows = []
    for n, x_D in enumerate(case.x_ND):
        y_D = torch.zeros_like(x_D)
        for k, expert in enumerate(case.picks.expert_RK[n // block].tolist()):
            if mask_RK[n // block, k]:
                h_F = x_D @ experts.up_EDF[expert]
                if experts.up_bias_EF is not None:
                    h_F = h_F + experts.up_bias_EF[expert]
                out_D = (0.5 * h_F * (1 + torch.erf(h_F / math.sqrt(2)))) @ experts.down_EFD[expert]
                if experts.down_bias_ED is not None:
                    out_D = out_D + experts.down_bias_ED[expert]
                y_D = y_D + case.weight_RK[n // block, k] * out_D
        rows.append(y_D)
    return torch.stack(rows)


def gradients(y_ND: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of a random projection; zeros where nothing depends on a leaf."""
    if not y_ND.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    projection = random(*y_ND.shape, seed=20).to(y_ND.dtype)
    found = torch.autograd.grad((y_ND * projection).sum(), leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_outputs_and_gradients_are_those_of_loops(
    name: str, kind: str, block: int, bias: bool, dtype: torch.dtype
) -> None:
    wide, case = make(kind, block, bias, torch.float64), make(kind, block, bias, dtype)
    expected_ND = loops(wide, block)
    y_ND = IMPLEMENTATIONS[name](case.x_ND, case.plan, case.experts)
    assert y_ND.dtype == dtype
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
    torch.testing.assert_close(y_ND.double(), expected_ND, **tolerance)
    if kind == "none at all":
        assert not y_ND.any()
    found, wanted = gradients(y_ND, case.leaves()), gradients(expected_ND, wide.leaves())
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), reference, **tolerance)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_loads_of_several_chunks_are_those_of_a_plain_sum_over_experts(name: str) -> None:
    tokens, experts = 3 * CHUNK, Experts(8, WIDTH, HIDDEN, bias=True)
    Initialiser(0, ModelConfig(layers=1, init_std=0.02)).module(experts, "blocks.0.ffn.experts")
    experts.double()
    score_NE = random(tokens, 8, seed=4)
    score_NE[:, 5] += 1.5  # one expert has more rows than a chunk, the others share chunks
    weight_NE = score_NE.softmax(1)
    expert_NK = score_NE.topk(2, 1).indices
    plan = make_dispatch_plan(RoutingDecision(expert_NK, weight_NE.gather(1, expert_NK)), 8, 1)
    assert plan.counts_E.max() > CHUNK > plan.counts_E.min()
    x_ND = random(tokens, WIDTH)
    mask_NE = torch.zeros_like(weight_NE).scatter(1, expert_NK, 1.0)
    every_END = [experts(x_ND, _ends(8, e, tokens)) for e in range(8)]
    expected_ND = torch.einsum("ne,end->nd", weight_NE * mask_NE, torch.stack(every_END))
    torch.testing.assert_close(IMPLEMENTATIONS[name](x_ND, plan, experts), expected_ND, rtol=1e-10, atol=1e-10)


def _ends(experts: int, expert: int, rows: int) -> Tensor:
    """All rows to one expert."""
    return torch.where(torch.arange(experts) < expert, 0, rows).to(torch.int32)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    def once() -> list[Tensor]:
        case = make("top-2", 3, True, torch.float32)
        y_ND = IMPLEMENTATIONS[name](case.x_ND, case.plan, case.experts)
        return [y_ND, *gradients(y_ND, case.leaves())]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


@pytest.mark.parametrize(
    ("caches", "size", "rows"),
    [
        ({"1": "32K", "2": "512K", "3": "32768K"}, 512 << 10, 4096),
        ({"1": "32K", "2": "1024K", "3": "32768K"}, 1 << 20, 1024),
        ({"1": "48K", "2": "2M"}, 2 << 20, 1024),
        ({"1": "32K"}, None, 1024),
        ({"2": "unknown"}, None, 1024),
        ({}, None, 1024),
    ],
)
def test_rows_of_a_chunk_follow_from_the_second_cache(
    tmp_path: Path, caches: dict[str, str], size: int | None, rows: int
) -> None:
    for level, text in caches.items():
        folder = tmp_path / f"index{level}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{text}\n")
    assert chunked.level_2_bytes(tmp_path) == size
    assert chunked.rows_of_chunk(size) == rows


@pytest.mark.parametrize("block", [1, 3, 700])
@pytest.mark.parametrize("counts", [[0, 0], [0, 5, 0, 3000, 1024, 0, 1, 1], [2048, 2047, 1023, 1], [1] * 3000])
def test_shares_hold_every_row_once_in_chunks_of_bounded_size(counts: list[int], block: int) -> None:
    at, rows_of = 0, [0] * len(counts)
    shares = chunked.shares(counts, block)
    rows_of_share = [sum(sum(chunk.rows_of) for chunk in share) for share in shares]
    assert rows_of_share == sorted(rows_of_share, reverse=True)
    for share in sorted(shares, key=lambda share: share[0].pairs.start):
        assert [chunk.adds for chunk in share] == [False] + [True] * (len(share) - 1)
        assert len(share) == 1 or {expert for chunk in share for expert in chunk.experts} == {share[0].experts[0]}
        for chunk in share:
            rows = sum(chunk.rows_of)
            assert chunk.pairs == slice(at, at + rows // block) and chunk.rows == slice(at * block, at * block + rows)
            assert min(chunk.rows_of) > 0 and rows <= max(2 * CHUNK, block)
            assert len(chunk.experts) == 1 or rows <= CHUNK
            at += rows // block
            for expert, count in zip(chunk.experts, chunk.rows_of, strict=True):
                rows_of[expert] += count
    assert rows_of == [count * block for count in counts]


def test_threads_share_the_chunks_of_a_cpu_and_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    linear = chunked._Linear.__call__

    def watched(*arguments: Any, out: Tensor) -> None:
        products.append(len(out))
        linear(*arguments, out=out)

    monkeypatch.setattr(chunked._Linear, "__call__", watched)

    def once(threads: int) -> list[Tensor]:
        products.clear()
        torch.set_num_threads(threads)
        case = make("top-2", 3, True, torch.float32)
        y_ND = small_chunks(case.x_ND, case.plan, case.experts)
        results = [y_ND, *gradients(y_ND, case.leaves())]
        assert sum(products) == 4 * 12 * 2 * 3  # four products of all rows, each row once
        return results

    before = torch.get_num_threads()
    try:
        assert all(torch.equal(a, b) for a, b in zip(once(1), once(2), strict=True))
    finally:
        torch.set_num_threads(before)


def test_a_router_without_gradient_costs_none() -> None:
    case = make("top-2", 1, True, torch.float64)
    plan = make_dispatch_plan(RoutingDecision(case.picks.expert_RK, case.weight_RK.detach()), EXPERTS, 1)
    for run in IMPLEMENTATIONS.values():
        run(case.x_ND, plan, case.experts).sum().backward()
        assert case.weight_RK.grad is None and case.x_ND.grad is not None


def test_gathering_and_combining_are_each_other_s_transpose() -> None:
    case = make("any number", 3, True, torch.float64)
    rows_QD = random(case.plan.pair_P.shape[0] * 3, WIDTH, seed=5)
    ones_RK = torch.ones_like(case.weight_RK)
    unweighted = make_dispatch_plan(RoutingDecision(case.picks.expert_RK, ones_RK, case.picks.keep_RK), EXPERTS, 3)
    there = (gather(case.x_ND, case.plan) * rows_QD).sum()
    back = (case.x_ND * combine(rows_QD, unweighted)).sum()
    torch.testing.assert_close(there, back)


def test_the_cpu_s_own_implementation_is_left_under_autocast() -> None:
    x_ND = torch.zeros(1, 1)
    assert dispatch.implementation(x_ND, EIGHT, "auto") is chunked_ffn
    assert dispatch.implementation(x_ND.bfloat16(), EIGHT, "auto") is grouped_ffn
    with torch.autocast("cpu", torch.bfloat16):
        assert dispatch.implementation(x_ND, EIGHT, "auto") is grouped_ffn


@pytest.mark.parametrize(
    ("dtype", "choice", "hidden", "expected"),
    [
        (torch.bfloat16, "auto", 16, "fused_ffn"),
        (torch.bfloat16, "auto", 12, "triton_ffn"),  # no multiple of 16 bytes
        (torch.bfloat16, "triton", 16, "triton_ffn"),
        (torch.bfloat16, "grouped", 16, "grouped_ffn"),
        (torch.float32, "auto", 16, "triton_ffn"),
        (torch.float32, "fused", 16, "triton_ffn"),
        (torch.float16, "auto", 16, "triton_ffn"),
        (torch.float64, "triton", 16, "grouped_ffn"),
    ],
)
def test_what_a_gpu_runs_goes_by_precision_and_size(dtype, choice, hidden, expected, monkeypatch) -> None:
    pytest.importorskip("triton")
    x_ND = SimpleNamespace(device=torch.device("cuda"), dtype=dtype)  # all that is asked of a tensor
    assert dispatch.implementation(x_ND, Experts(2, 16, hidden, bias=True), choice).__name__ == expected
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    assert dispatch.implementation(x_ND, Experts(2, 16, hidden, bias=True), choice) is grouped_ffn


def test_a_choice_holds_where_it_can_run() -> None:
    x_ND = torch.zeros(1, 1)
    assert dispatch.implementation(x_ND, EIGHT, "grouped") is grouped_ffn
    assert dispatch.implementation(x_ND, EIGHT, "triton") is chunked_ffn  # the kernels are for GPUs


def test_a_choice_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    for choice in dispatch.ON_GPUS:
        with pytest.raises(ConfigError, match=rf"run\.dispatch={choice} needs the package triton"):
            dispatch.check_installed(choice)
