"""What `fused_ffn` must do. Run by test_triton_experts.py in Triton's interpreter, in a process of its own.

On a machine with a GPU the same cases run compiled: python -m pytest tests/model/moe/experts/fused_cases.py

Shape suffixes as in triton_cases.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from moe_study.model.moe.experts import fused
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.fused import fused_ffn
from tests.model.moe.experts.triton_cases import DEVICE, MASKS, Problem, assert_close, plan_of, random, takes


@pytest.mark.parametrize(("width", "hidden", "bias", "block"), [(40, 8, True, 1), (16, 20, False, 3), (8, 36, True, 3)])
@pytest.mark.parametrize("mask", MASKS)
def test_values_and_gradients_are_those_of_a_loop_over_tokens_and_experts(mask, width, hidden, bias, block):
    problem = Problem(MASKS[mask], width, hidden, bias, block, torch.float32)
    assert_close(problem.results(fused_ffn), problem.expected(), 2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_narrow_values_are_summed_in_float32(dtype, tolerance):
    problem = Problem(takes(16, 15, 40, 0), 32, 40, True, 1, dtype)
    results = problem.results(fused_ffn)
    assert [result.dtype for result in results] == [dtype, dtype, torch.float32, *[dtype] * 4]
    assert_close(results, problem.expected(), tolerance)


def test_under_autocast_products_are_narrow_and_gradients_as_precise_as_the_parameters():
    problem = Problem(random(20, 4, 0.5), 32, 24, True, 1, torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        results = problem.results(fused_ffn)
    assert results[0].dtype == torch.bfloat16
    assert {result.dtype for result in results[1:]} == {torch.float32}
    assert_close(results, problem.expected(), 2e-2)


def test_the_same_inputs_give_the_same_bits():
    problem = Problem(random(40, 5, 0.5), 32, 20, True, 1, torch.float32)
    for first, second in zip(problem.results(fused_ffn), problem.results(fused_ffn), strict=True):
        assert torch.equal(first, second)


def test_inputs_may_lie_in_memory_in_any_order():
    problem = Problem(random(20, 3, 0.5), 24, 16, True, 1, torch.float32)
    expected = problem.results(fused_ffn)
    problem.x_ND = problem.x_ND.detach().mT.contiguous().mT.requires_grad_()
    for parameter in problem.experts.parameters():
        parameter.data = parameter.data.mT.contiguous().mT
    for value, right in zip(problem.results(fused_ffn), expected, strict=True):
        assert torch.equal(value, right)


def test_a_second_backward_pass_through_the_same_graph_gives_the_same_gradients():
    problem = Problem(takes(3, 5), 16, 20, True, 2, torch.float32)
    y_ND = fused_ffn(problem.x_ND, problem.plan, problem.experts)
    first, second = (torch.autograd.grad(y_ND, problem.leaves(), problem.grad_ND, retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def operands(problem: Problem) -> list[Any]:
    """What the operator of the forward pass takes, up to `keep`."""
    plan, experts = problem.plan, problem.experts
    values = [problem.x_ND, plan.block_P, plan.weight_P, plan.expert_P, plan.ends_E, plan.pair_P, plan.starts_R1]
    values += [experts.up_EDF, experts.up_bias_EF, experts.down_EFD, experts.down_bias_ED]
    return [*(value if value is None else value.detach() for value in values), plan.block]


def test_without_gradients_nothing_is_kept():
    problem = Problem(takes(3, 5), 16, 20, True, 2, torch.float32)
    kept, not_kept = (fused._forward(*operands(problem), keep) for keep in (True, False))
    assert [len(value) for value in kept[1:]] == [16, 16] and [len(value) for value in not_kept[1:]] == [0, 0]
    assert torch.equal(kept[0], not_kept[0])


def test_torch_compile_makes_one_graph_with_the_same_results():
    problem = Problem(random(20, 3, 0.5), 16, 20, True, 1, torch.float32)

    def function(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
        return fused_ffn(x_ND.cos(), plan, experts).sin()

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for value, right in zip(problem.results(compiled), problem.results(function), strict=True):
        assert torch.equal(value, right)


def test_the_number_of_pairs_may_change_without_compiling_again():
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(fused_ffn, backend=graphs, fullgraph=True)
    problem = Problem(random(20, 3, 0.5), 16, 20, True, 1, torch.float32)
    for share in (0.5, 0.3, 0.7, 0.4):
        takes_RE = random(20, 3, share)
        weight_P = torch.rand(int(takes_RE.sum())).to(DEVICE).requires_grad_()
        problem.plan = plan_of(takes_RE.to(DEVICE), weight_P, 1)
        for value in (problem.plan.block_P, problem.plan.weight_P, problem.plan.expert_P, problem.plan.pair_P):
            torch._dynamo.mark_dynamic(value, 0)
        assert_close(problem.results(compiled), problem.expected(), 2e-6)
    assert graphs.frame_count == 1


@pytest.mark.parametrize("bias", [True, False])
def test_the_operators_are_what_they_are_registered_as(bias):
    problem = Problem(random(12, 3, 0.5), 16, 20, bias, 3, torch.float32)
    checks = ("test_schema", "test_faketensor")
    *values, block = operands(problem)
    torch.library.opcheck(fused._forward, (*values, block, True), test_utils=checks)
    _, *kept = fused._forward(*values, block, True)
    backward = (problem.grad_ND, *values[1:], *kept, block, torch.float32, torch.float32)
    torch.library.opcheck(fused._backward, backward, test_utils=checks)
