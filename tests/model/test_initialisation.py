"""Initial parameters: GPT-2's scheme, and equal across runs that differ in routing alone."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Context, RouterKind, RouterState, Routing, Selection, Soft, Unit
from moe_study.model.gpt import GPT
from moe_study.model.initialisation import Initialiser, Linear, init_experts_, init_normal_, initialise
from tests.part import every

MODEL = ModelConfig(layers=3, heads=4, width=64, context=32)
VOCABULARY = 500


DENSE = Routing(selection=Selection.DENSE)


def parameters(model: ModelConfig = MODEL, seed: int = 0, routing: Routing = DENSE) -> dict[str, Tensor]:
    return dict(GPT(model, routing, VOCABULARY, seed).named_parameters())


ROUTED = {
    "dense": DENSE,
    "token": Routing(num_experts=5, k=2, shared_experts=1),
    "sequence, deep router": Routing(
        unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, router=RouterKind.MLP, router_depth=2, num_experts=5, k=2
    ),
    "segment, prior": Routing(
        unit=Unit.SEGMENT, segment_length=8, context=Context.PREVIOUS_SEGMENT, num_experts=40, k=2
    ),
    "frozen": Routing(num_experts=5, k=2, router_state=RouterState.FROZEN),
    "soft": Routing(selection=Selection.SOFT, num_experts=5, soft=Soft(slots_per_expert=2)),
    "merge": Routing(selection=Selection.MERGE, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, num_experts=5),
}


@pytest.mark.parametrize("routing", ROUTED.values(), ids=ROUTED)
@pytest.mark.parametrize(
    ("width", "init_std", "expected"),
    # 0.02 * sqrt(12), ...
    every(2, [(64, None, 0.0692820323), (128, None, 0.0489897949), (64, 0.3, 0.3), (64, 0.02, 0.02)]),
)
def test_every_kind_of_weight_follows_the_scheme_of_gpt2(
    routing: Routing, width: int, init_std: float | None, expected: float
) -> None:
    model = dataclasses.replace(MODEL, width=width, init_std=init_std)
    for name, value in parameters(model, routing=routing).items():
        last = name.rpartition(".")[2]
        if "norm" in name and last == "weight":
            assert (value == 1).all(), name
        elif "bias" in last:
            assert (value == 0).all(), name
        elif last == "scale":
            assert value == 1, name
        else:
            residual = name.endswith(("attn.out.weight", "down.weight", "down_EFD"))
            std = expected / math.sqrt(2 * MODEL.layers) if residual else expected
            tolerance = 4 / math.sqrt(2 * value.numel())  # four standard errors
            assert value.std().item() == pytest.approx(std, rel=tolerance), name
            assert abs(value.mean().item()) < 4 * std / math.sqrt(value.numel()), name


def test_at_the_width_of_gpt2_the_deviation_is_gpt2_s() -> None:
    assert ModelConfig(width=768).weight_std == 0.02
    assert ModelConfig(width=48).weight_std == 0.08
    assert ModelConfig(width=48, init_std=0.02).weight_std == 0.02


def test_two_deviations_are_one_draw_at_two_sizes() -> None:
    small, large = (parameters(dataclasses.replace(MODEL, init_std=std)) for std in (0.02, 0.08))
    for name, value in small.items():
        if "norm" not in name and not name.endswith("bias"):
            torch.testing.assert_close(4 * value, large[name])


def test_a_router_drawn_anew_has_the_deviation_of_the_first_draw() -> None:
    redrawn = (
        Routing(num_experts=200, router_state=RouterState.REDRAWN),
        Routing(selection=Selection.SOFT, num_experts=200, router_state=RouterState.REDRAWN),
    )
    model = dataclasses.replace(MODEL, init_std=0.3)
    for routing in redrawn:
        gpt = GPT(model, routing, VOCABULARY)
        gpt.begin_step(3)
        name = next(name for name, _ in gpt.named_parameters() if "router.weights" in name or "phi" in name)
        assert gpt.get_parameter(name).std().item() == pytest.approx(0.3, rel=0.03), name


def test_a_seed_gives_the_same_model_whatever_the_global_random_state() -> None:
    torch.manual_seed(1)
    first = parameters(seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = parameters(seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights_everywhere() -> None:
    one, other = parameters(seed=0), parameters(seed=1)
    drawn = [name for name in one if name.endswith("weight") and "norm" not in name]
    assert len(drawn) == 2 + 4 * MODEL.layers
    assert not any(torch.isclose(one[name], other[name]).float().mean() > 0.1 for name in drawn)


def test_equally_shaped_weights_of_one_model_differ() -> None:
    values = parameters()
    assert not torch.equal(values["blocks.0.attn.qkv.weight"], values["blocks.1.attn.qkv.weight"])


def test_what_does_not_differ_between_two_designs_starts_equal() -> None:
    narrow, wide = parameters(), parameters(routing=dataclasses.replace(DENSE, ffn_multiplier=2.0))
    shared = [name for name in narrow if ".ffn." not in name]
    assert len(shared) > 10
    assert all(torch.equal(narrow[name], wide[name]) for name in shared)


def test_an_expert_starts_equal_whatever_their_number_and_the_first_is_the_dense_network() -> None:
    name = "blocks.0.ffn.up.weight"
    few, many = torch.empty(2, 64, 256), torch.empty(5, 64, 256)
    init_experts_(few, MODEL.weight_std, name, seed=7, transpose=True)
    init_experts_(many, MODEL.weight_std, name, seed=7, transpose=True)
    assert torch.equal(many[:2], few)
    assert torch.equal(many[0].T, parameters(seed=7)[name])
    assert len({weights.sum().item() for weights in many}) == 5
    assert not torch.equal(many[1], many[0])
    untransposed = init_experts_(torch.empty(2, 256, 64), MODEL.weight_std, name, seed=7)
    assert torch.equal(untransposed, few.mT)


def test_experts_are_drawn_alike_on_any_number_of_threads() -> None:
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(init_experts_(torch.empty(7, 8, 16), 0.1, "up", seed=1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)


def test_experts_that_are_parameters_can_be_filled() -> None:
    stack = nn.Parameter(torch.full((2, 3, 4), torch.nan))
    Initialiser(0, MODEL).experts_(stack, "blocks.0.ffn.down.weight", residual=True)
    assert stack.isfinite().all() and stack.requires_grad and stack.is_leaf


def test_values_do_not_depend_on_the_precision_they_are_kept_in() -> None:
    single = init_normal_(torch.empty(50), 0.02, "a", seed=0)
    double = init_normal_(torch.empty(50, dtype=torch.float64), 0.02, "a", seed=0)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)


class Custom(nn.Module):
    """A module with an `initialise` of its own, which may forget a parameter."""

    def __init__(self, forgets: bool) -> None:
        super().__init__()
        self.inner = Linear(3, 3, bias=False)
        self.table = nn.Parameter(torch.empty(2))
        self.forgets = forgets

    def initialise(self, init: Initialiser, prefix: str) -> None:
        init.module(self.inner, f"{prefix}.inner")
        if not self.forgets:
            nn.init.zeros_(self.table)


def test_a_module_may_initialise_itself() -> None:
    root = nn.Module()
    root.custom = Custom(forgets=False)
    initialise(root, MODEL, seed=3)
    expected = init_normal_(torch.empty(3, 3), MODEL.weight_std, "custom.inner.weight", seed=3)
    assert torch.equal(root.custom.inner.weight, expected)
    assert (root.custom.table == 0).all()


def test_a_forgotten_parameter_is_an_error() -> None:
    root = nn.Module()
    root.custom = Custom(forgets=True)
    with pytest.raises(RuntimeError, match=r"custom\.table"):
        initialise(root, MODEL, seed=0)
