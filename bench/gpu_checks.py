"""Is what runs on a GPU right? Rows for bench/gpu.py, each an error over what is allowed: 1 or less passes.

Values and gradients of each implementation of the experts against a loop over experts in float64; the same bits when
asked twice; compiled against not compiled; a run that is stopped and goes on against one that is not; and a command
that trains from data to result.

Shape suffixes: R blocks, E experts, K candidates, N tokens, D width.
"""

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import step
from bench.common import Row, Skipped
from bench.gpu_setting import IMPLEMENTATIONS, Sizes, float32_products, implementation_of
from bench.sides import mixture
from bench.tiny_runs import Size, TinyRuns
from moe_study.design.routing import Gate, Routing, Selection
from moe_study.model.moe.experts.dispatch import ON_GPUS
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan, make_dispatch_plan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.training.device import autocast
from moe_study.training.loop import Trainer

TOLERANCE = {"bf16": 2e-2, "fp16": 2e-3, "tf32": 5e-3, "fp32": 2e-5}  # of the largest value
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
WIDTH, HIDDEN, EXPERTS = 136, 72, 13
NOT_FINITE = 1e30  # an error that JSON can hold


def check_rows(sizes: Sizes) -> dict[str, Callable[[], Row]]:
    """Every check by its row's name, the most telling ones first."""
    rows: dict[str, Callable[[], Row]] = {}
    for precision in TOLERANCE:
        for name in IMPLEMENTATIONS:
            rows[f"check {name} {precision}"] = partial(agreement, name, precision, sizes)
    for name in IMPLEMENTATIONS:
        rows[f"check {name} repeats its bits"] = partial(repeatability, name, sizes)
        rows[f"check {name} compiled"] = partial(compiled_layer, partial(implementation_of, name), sizes)
        rows[f"check {name} resumes with the same bits"] = partial(resumption, name, sizes)
    rows["check compiled"] = partial(compiled_layer, contextlib.nullcontext, sizes)  # through what dispatch chooses
    rows["check a training command"] = partial(command, sizes)
    return rows


def verdict(error: float, allowed: float, **more: Any) -> Row:
    value = error / allowed
    return {"median": value, "low": value, "high": value, "measured": "error over what is allowed", **more}


def none_of(wrong: int, **more: Any) -> Row:
    """The verdict on a count of what must not happen at all: one is already too many."""
    return verdict(wrong, 0.5, **more)


def plans(device: str, tokens: int) -> dict[str, DispatchPlan]:
    """Loads that are hard on a dispatch; expert 0 never gets a token."""
    generator = torch.Generator().manual_seed(0)

    def plan(k: int, keep: float | Tensor | None = None, experts: int = EXPERTS, block: int = 1) -> DispatchPlan:
        decisions = tokens // block
        scores_RE = torch.rand(decisions, experts - 1, generator=generator)
        expert_RK = scores_RE.topk(k).indices + 1
        weight_RK = torch.randn(decisions, k, generator=generator)
        keep_RK = torch.rand(decisions, k, generator=generator) < keep if isinstance(keep, float) else keep
        kept = None if keep_RK is None else keep_RK.to(device)
        return make_dispatch_plan(RoutingDecision(expert_RK.to(device), weight_RK.to(device), kept), EXPERTS, block)

    return {
        "top 2": plan(2),
        "none to all": plan(EXPERTS - 1, 0.2),
        "all in one": plan(1, experts=2),
        "blocks of 16": plan(3, 0.5, block=16),
        "no pairs": plan(2, torch.zeros(tokens, 2, dtype=torch.bool)),
    }


def agreement(name: str, precision: str, sizes: Sizes) -> Row:
    """The largest difference from the loop in float64 over all plans, values and gradients, over the tolerance."""
    if precision == "tf32" and sizes.device == "cpu":
        raise Skipped("a CPU has no TF32")
    errors = {}
    with implementation_of(name) as function, float32_products(precision):
        for load, plan in plans(sizes.device, sizes.check_tokens).items():
            problem = Problem(plan, DTYPES[precision], sizes.device)
            errors[load] = distance(problem.results(function), problem.results_of_loop())
    return verdict(max(errors.values()), TOLERANCE[precision], errors=errors)


class Problem:
    """Experts with an input, a plan and a gradient of the output."""

    def __init__(self, plan: DispatchPlan, dtype: torch.dtype, device: str) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device, dtype)

        self.plan = plan
        self.plan.weight_P = plan.weight_P.detach().requires_grad_()
        self.experts = Experts(EXPERTS, WIDTH, HIDDEN, bias=True).to(device, dtype)
        for parameter in self.experts.parameters():
            parameter.data = draw(*parameter.shape) / parameter.shape[1] ** 0.5
        self.x_ND, self.grad_ND = draw(plan.tokens, WIDTH).requires_grad_(), draw(plan.tokens, WIDTH)

    def results(self, function: Callable[[Tensor, DispatchPlan, Experts], Tensor]) -> list[Tensor]:
        """The output, and its gradients by input, gate weights and experts."""
        y_ND = function(self.x_ND, self.plan, self.experts)
        leaves = [self.x_ND, self.plan.weight_P, *self.experts.parameters()]
        return [y_ND.detach(), *torch.autograd.grad(y_ND, leaves, self.grad_ND.to(y_ND.dtype), materialize_grads=True)]

    def results_of_loop(self) -> list[Tensor]:
        wide = copy.copy(self)
        wide.plan, wide.experts = copy.copy(self.plan), copy.deepcopy(self.experts).double()
        wide.plan.weight_P = self.plan.weight_P.detach().double().requires_grad_()
        wide.x_ND = self.x_ND.detach().double().requires_grad_()
        return wide.results(loop)


def loop(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """Expert after expert, in the precision of x."""
    assert experts.up_bias_EF is not None and experts.down_bias_ED is not None
    y_ND, start = 0 * x_ND, 0
    for expert, count in enumerate(plan.counts_E.tolist()):
        pairs = slice(start, start := start + count)
        inside = torch.arange(plan.block, device=x_ND.device)
        token_Q = (plan.block_P[pairs, None] * plan.block + inside).flatten()
        h_QF = F.gelu(x_ND[token_Q] @ experts.up_EDF[expert] + experts.up_bias_EF[expert])
        y_QD = h_QF @ experts.down_EFD[expert] + experts.down_bias_ED[expert]
        y_ND = y_ND.index_add(0, token_Q, y_QD * plan.weight_P[pairs].repeat_interleave(plan.block)[:, None])
    return y_ND


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, each result's relative to its largest value; NOT_FINITE where one is not finite."""
    worst = 0.0
    for one, other in zip(ours, theirs, strict=True):
        if other.numel() == 0:
            continue
        if not one.isfinite().all():
            return NOT_FINITE
        worst = max(
            worst, float((one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-30))
        )
    return worst


def repeatability(name: str, sizes: Sizes) -> Row:
    """How many of the results of two calls differ in any bit; none may."""
    different = 0
    for plan in plans(sizes.device, sizes.check_tokens).values():
        problem = Problem(plan, torch.bfloat16, sizes.device)
        with implementation_of(name) as function:
            twice = zip(problem.results(function), problem.results(function), strict=True)
            different += sum(not torch.equal(one, other) for one, other in twice)
    return none_of(different)


def compiled_layer(choose: Callable[[], contextlib.AbstractContextManager[Any]], sizes: Sizes) -> Row:
    """A mixture layer under torch.compile against itself without, and top-k in one graph.

    A threshold waits for its number of pairs, which breaks the graph; into how many is kept, too.
    """
    top_k = Routing(num_experts=8, k=2, expert_size=HIDDEN, gate=Gate.PICK_THEN_SOFTMAX)
    threshold = Routing(selection=Selection.THRESHOLD, num_experts=8, expert_size=HIDDEN, threshold=0.12)
    errors, graphs = {}, {}
    for label, routing in (("top 2", top_k), ("threshold", threshold)):
        with choose():
            side = mixture(routing, sizes.small_layer())
            side()
            plain = gradients(side.module)
            graphs[label] = graph_count(side.module, side.x_BTD, sizes)
            side.module.compile(backend=sizes.backend)
            side()
            errors[label] = distance(gradients(side.module), plain)
    broken = NOT_FINITE * (graphs["top 2"] != 1)
    return verdict(max(*errors.values(), broken), TOLERANCE["bf16"], errors=errors, graphs=graphs)


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def graph_count(module: nn.Module, x_BTD: Tensor, sizes: Sizes) -> int:
    """Into how many graphs torch.compile cuts the layer; 1 is without a break."""
    torch._dynamo.reset()
    with autocast(x_BTD.device, "bf16"):
        count = int(torch._dynamo.explain(module)(x_BTD).graph_count)
    torch._dynamo.reset()
    return count


def resumption(name: str, sizes: Sizes) -> Row:
    """Weights after six steps, and after three, a state that goes through a file, and three more: how many differ.

    None may with attention by plain products. On a GPU the gradients of fused attention may add up in another order
    each time: how many differ with the usual attention is kept beside.
    """
    if name in ON_GPUS and sizes.device == "cpu":
        raise Skipped("Triton's interpreter is too slow for it")
    usual = weights_that_differ(name, sizes)
    with sdpa_kernel(SDPBackend.MATH):
        return none_of(weights_that_differ(name, sizes), with_usual_attention=usual)


def weights_that_differ(name: str, sizes: Sizes) -> int:
    routing = Routing(num_experts=8, k=2, expert_size=HIDDEN, gate=Gate.PICK_THEN_SOFTMAX)
    with implementation_of(name):
        straight, stopped, resumed = (step.trainer_of(routing, sizes.small_step()) for _ in range(3))
        advance(straight, 6)
        advance(stopped, 3)
        file = io.BytesIO()
        torch.save(stopped.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, map_location="cpu", weights_only=False))
        advance(resumed, 3)
    pairs = zip(straight.model.parameters(), resumed.model.parameters(), strict=True)
    return sum(not torch.equal(one, other) for one, other in pairs)


def advance(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.train_step()


def command(sizes: Sizes) -> Row:
    """`python train.py -m` on made-up text, five routings: every run ends, and its loss falls."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        tiny = TinyRuns(Path(folder), Size(device=sizes.device, steps=sizes.command_steps, eval_tokens=1024))
        seconds = tiny.sweep("check", 5 if sizes.device == "cuda" else 1)
        losses = tiny.losses("check")
    rising = sum(not curve[-1] < curve[0] for curve in losses.values())
    return none_of(rising, seconds=seconds, losses=losses)
