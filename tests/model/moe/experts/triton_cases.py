"""What implementations with Triton kernels must do. Run by test_triton_experts.py in Triton's interpreter, in a process
of its own.

On a machine with a GPU the same cases run compiled: python -m pytest tests/model/moe/experts/triton_cases.py

Shape suffixes: R blocks, P pairs of a block and an expert, N tokens, D width, F hidden units, E experts, R1 = R + 1.
"""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from moe_study.model.moe.experts import fused, triton_experts
from moe_study.model.moe.experts.dispatch import Implementation
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan, make_dispatch_plan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.fused import fused_ffn
from moe_study.model.moe.experts.triton_experts import triton_ffn
from moe_study.model.moe.routing.gate import RoutingDecision

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOTH = pytest.mark.parametrize("function", [triton_ffn, fused_ffn])


def plan_of(takes_RE: Tensor, weight_P: Tensor, block: int) -> DispatchPlan:
    """The pairs of a (blocks, experts) mask, made without the code that makes plans."""
    expert_P, block_P = takes_RE.T.nonzero().unbind(1)
    counts_E = takes_RE.sum(0)
    starts_R1 = F.pad(takes_RE.sum(1).cumsum(0), (1, 0))
    ends_E, pair_P = (counts_E.cumsum(0) * block).int(), block_P.argsort(stable=True)
    return DispatchPlan(block_P, weight_P, expert_P, counts_E, ends_E, pair_P, starts_R1, block, len(takes_RE))


def takes(*counts: int) -> Tensor:
    """As many blocks as the largest count; expert e has the last counts[e] of them."""
    blocks = max(counts)
    return torch.arange(blocks).unsqueeze(1) >= blocks - torch.tensor(counts)


def random(blocks: int, experts: int, share: float) -> Tensor:
    return torch.rand(blocks, experts, generator=torch.Generator().manual_seed(0)) < share


MASKS = {
    "top 2 of 5": torch.zeros(37, 5, dtype=torch.bool).scatter(1, torch.rand(37, 5).argsort(1)[:, :2], True),
    "a variable number, tokens with none": random(21, 6, 0.3),
    "all experts": takes(9, 9, 9),
    "one expert": takes(19),
    "all in one": takes(0, 0, 35, 0),
    "counts around a tile": takes(16, 15, 17, 32, 33, 1),
    "no pairs": torch.zeros(5, 3, dtype=torch.bool),
    "more experts than pairs": random(4, 70, 0.03),
}


class Problem:
    """Inputs of the function and a gradient of its output."""

    def __init__(self, takes_RE: Tensor, width: int, hidden: int, bias: bool, block: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, generator=generator).to(DEVICE, dtype).requires_grad_()

        blocks, experts = takes_RE.shape
        self.x_ND = draw(blocks * block, width)
        self.plan = plan_of(takes_RE.to(DEVICE), draw(int(takes_RE.sum()), dtype=torch.float32), block)
        self.experts = Experts(experts, width, hidden, bias).to(DEVICE, dtype)
        for parameter in self.experts.parameters():
            parameter.data = draw(*parameter.shape).data / math.sqrt(parameter.shape[1])
        self.grad_ND = draw(blocks * block, width).detach()

    def leaves(self) -> list[Tensor]:
        return [self.x_ND, self.plan.weight_P, *self.experts.parameters()]

    def results(self, function: Implementation) -> list[Tensor]:
        """The output, then the gradient of each leaf."""
        y_ND = function(self.x_ND, self.plan, self.experts)
        return [y_ND.detach(), *torch.autograd.grad(y_ND, self.leaves(), self.grad_ND.to(y_ND.dtype))]

    def expected(self) -> list[Tensor]:
        """By a loop over tokens and experts in float64."""
        experts = copy.deepcopy(self.experts).double().cpu()
        x_ND, weight_P = (leaf.detach().double().cpu().requires_grad_() for leaf in self.leaves()[:2])
        outputs = [torch.zeros_like(x_D) for x_D in x_ND]
        for p, (r, e) in enumerate(zip(self.plan.block_P.tolist(), self.plan.expert_P.tolist(), strict=True)):
            for n in range(r * self.plan.block, (r + 1) * self.plan.block):
                h_F = x_ND[n] @ experts.up_EDF[e]
                if experts.up_bias_EF is not None:
                    h_F = h_F + experts.up_bias_EF[e]
                y_D = F.gelu(h_F) @ experts.down_EFD[e]
                if experts.down_bias_ED is not None:
                    y_D = y_D + experts.down_bias_ED[e]
                outputs[n] = outputs[n] + weight_P[p] * y_D
        leaves, y_ND = [x_ND, weight_P, *experts.parameters()], torch.stack(outputs)
        # 0 * x: a graph also where there are no pairs.
        grads = torch.autograd.grad(
            y_ND + 0 * x_ND, leaves, self.grad_ND.double().cpu(), allow_unused=True, materialize_grads=True
        )
        return [y_ND.detach(), *grads]

    def operands(self, module: Any) -> tuple[list[Tensor | None], list[Any]]:
        """The tensors that the operator of the forward pass of `module` takes, and what follows them up to `keep`."""
        plan, experts = self.plan, self.experts
        values = [self.x_ND, plan.block_P, plan.weight_P, *[plan.expert_P] * (module is fused)]
        values += [plan.ends_E, plan.pair_P, plan.starts_R1]
        values += [experts.up_EDF, experts.up_bias_EF, experts.down_EFD, experts.down_bias_ED]
        tensors = [value if value is None else value.detach() for value in values]
        return tensors, [plan.block, *[self.x_ND.dtype] * (module is fused)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Largest difference, relative to the largest value."""
    for number, (value, right) in enumerate(zip(actual, expected, strict=True)):
        difference = (value.double().cpu() - right).abs()
        assert difference.numel() == 0 or difference.max() <= tolerance * right.abs().max(), f"result {number}"


@pytest.mark.parametrize(
    ("function", "width", "hidden", "bias", "block"),
    [
        (triton_ffn, 33, 7, True, 1),
        (triton_ffn, 16, 20, False, 3),
        (fused_ffn, 40, 8, True, 1),
        (fused_ffn, 16, 20, False, 3),
        (fused_ffn, 8, 36, True, 3),
    ],
)
@pytest.mark.parametrize("mask", MASKS)
def test_values_and_gradients_are_those_of_a_loop_over_tokens_and_experts(mask, function, width, hidden, bias, block):
    problem = Problem(MASKS[mask], width, hidden, bias, block, torch.float32)
    assert_close(problem.results(function), problem.expected(), 2e-6)


@BOTH
def test_a_block_may_go_to_one_expert_twice(function):
    problem = Problem(takes(3, 5), 16, 20, True, 2, torch.float32)
    expert_RK = torch.tensor([[1, 1], [0, 1], [1, 1], [0, 0], [1, 0]], device=DEVICE)
    plan = make_dispatch_plan(RoutingDecision(expert_RK, torch.rand(5, 2).to(DEVICE)), 2, 2)
    problem.plan = dataclasses.replace(plan, weight_P=plan.weight_P.requires_grad_())
    assert_close(problem.results(function), problem.expected(), 2e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "hidden"), [(1, 1), (16, 32), (24, 20), (5, 40)])
def test_any_width_and_number_of_hidden_units(width, hidden, bias):
    problem = Problem(takes(0, 18, 5), width, hidden, bias, 1, torch.float32)
    assert_close(problem.results(triton_ffn), problem.expected(), 2e-6)


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_narrow_values_are_summed_in_float32(function, dtype, tolerance):
    problem = Problem(takes(16, 15, 40, 0), 32, 40, True, 1, dtype)
    results = problem.results(function)
    assert [result.dtype for result in results] == [dtype, dtype, torch.float32, *[dtype] * 4]
    assert_close(results, problem.expected(), tolerance)


@BOTH
def test_under_autocast_products_are_narrow_and_gradients_as_precise_as_the_parameters(function):
    problem = Problem(random(20, 4, 0.5), 32, 24, True, 1, torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        results = problem.results(function)
    assert results[0].dtype == torch.bfloat16
    assert {result.dtype for result in results[1:]} == {torch.float32}
    assert_close(results, problem.expected(), 2e-2)
    if function is triton_ffn:
        grad_up_EDF = results[3]  # not rounded on its way out: almost none of the values has a bfloat16 form
        assert (grad_up_EDF != grad_up_EDF.bfloat16().float()).float().mean() > 0.9


@BOTH
def test_the_same_inputs_give_the_same_bits(function):
    problem = Problem(random(40, 5, 0.5), 32, 20, True, 1, torch.float32)
    for first, second in zip(problem.results(function), problem.results(function), strict=True):
        assert torch.equal(first, second)


@BOTH
def test_a_second_backward_pass_through_the_same_graph_gives_the_same_gradients(function):
    problem = Problem(takes(3, 5), 16, 20, True, 2, torch.float32)
    y_ND = function(problem.x_ND, problem.plan, problem.experts)
    first, second = (torch.autograd.grad(y_ND, problem.leaves(), problem.grad_ND, retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@BOTH
def test_inputs_may_lie_in_memory_in_any_order(function):
    problem = Problem(random(20, 3, 0.5), 24, 16, True, 1, torch.float32)
    expected = problem.results(function)
    problem.x_ND = problem.x_ND.detach().mT.contiguous().mT.requires_grad_()
    for parameter in problem.experts.parameters():
        parameter.data = parameter.data.mT.contiguous().mT
    for value, right in zip(problem.results(function), expected, strict=True):
        assert torch.equal(value, right)


@pytest.mark.parametrize(("module", "function"), [(triton_experts, triton_ffn), (fused, fused_ffn)])
def test_without_gradients_nothing_is_kept(module, function):
    problem = Problem(takes(3, 5), 16, 20, True, 2, torch.float32)
    tensors, others = problem.operands(module)
    kept, not_kept = (module._forward(*tensors, *others, keep) for keep in (True, False))
    assert {len(rows) for rows in kept[1:]} == {16} and {len(rows) for rows in not_kept[1:]} == {0}
    assert torch.equal(kept[0], not_kept[0])
    with torch.no_grad():
        assert torch.equal(function(problem.x_ND, problem.plan, problem.experts), kept[0])


def test_float64_is_refused():
    problem = Problem(takes(3, 5), 16, 20, True, 1, torch.float64)
    with pytest.raises(ValueError, match="float64"):
        problem.results(triton_ffn)


class NoReading(TorchDispatchMode):
    """Fails where a value of a tensor would be read by the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_by_the_host():
    problem = Problem(random(20, 3, 0.5), 16, 16, True, 1, torch.float32)
    forward, backward = triton_experts._forward._init_fn, triton_experts._backward._init_fn  # what the operators run
    tensors, (block,) = problem.operands(triton_experts)
    with NoReading():
        _, h_QF = forward(*tensors, block, True)
        backward(problem.grad_ND, *tensors, h_QF, block, torch.float32, torch.float32)
        with pytest.raises(AssertionError):
            h_QF.sum().item()


@BOTH
def test_torch_compile_makes_one_graph_with_the_same_results(function):
    problem = Problem(random(20, 3, 0.5), 16, 20, True, 1, torch.float32)

    def between(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
        return function(x_ND.cos(), plan, experts).sin()

    compiled = torch.compile(between, backend="aot_eager", fullgraph=True)
    for value, right in zip(problem.results(compiled), problem.results(between), strict=True):
        assert torch.equal(value, right)


@BOTH
def test_the_number_of_pairs_may_change_without_compiling_again(function):
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, backend=graphs, fullgraph=True)
    problem = Problem(random(20, 3, 0.5), 16, 20, True, 1, torch.float32)
    for share in (0.5, 0.3, 0.7, 0.4):
        takes_RE = random(20, 3, share)
        weight_P = torch.rand(int(takes_RE.sum())).to(DEVICE).requires_grad_()
        problem.plan = plan_of(takes_RE.to(DEVICE), weight_P, 1)
        for value in (problem.plan.block_P, problem.plan.weight_P, problem.plan.expert_P, problem.plan.pair_P):
            torch._dynamo.mark_dynamic(value, 0)
        assert_close(problem.results(compiled), problem.expected(), 2e-6)
    assert graphs.frame_count == 1


@pytest.mark.parametrize("module", [triton_experts, fused])
@pytest.mark.parametrize("bias", [True, False])
def test_the_operators_are_what_they_are_registered_as(module, bias):
    problem = Problem(random(12, 3, 0.5), 16, 20, bias, 3, torch.float32)
    checks = ("test_schema", "test_faketensor")
    tensors, others = problem.operands(module)
    torch.library.opcheck(module._forward, (*tensors, *others, True), test_utils=checks)
    _, *kept = module._forward(*tensors, *others, True)
    read = tensors[1:] if module is fused else tensors  # the rows that it kept are the tokens
    backward = (problem.grad_ND, *read, *kept, others[0], torch.float32, torch.float32)
    torch.library.opcheck(module._backward, backward, test_utils=checks)
