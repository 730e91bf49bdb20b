"""Parameters and FLOPs of a configuration: against the built module, PyTorch's FLOP counter and the paper."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design.accounting import (
    expert_flops_per_token,
    ffn_flops_per_token,
    flops_per_token,
    num_active_params,
    num_params,
)
from moe_study.design.config import DataConfig, Embeddings, ModelConfig, RunConfig, TokenizerConfig
from moe_study.design.routing import Gate, Routing, Selection
from moe_study.design.validation import validate
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from tests.design.points import COUNTED, DENSE, TOP_K, VOCABULARY, toy
from tests.part import every

POINTS = TOP_K | DENSE
GPT2_SMALL = ModelConfig(layers=12, heads=12, width=768, context=1024)


def gpt2_small(**routing: Any) -> RunConfig:
    data = DataConfig(tokenizer=TokenizerConfig(kind="gpt2"))
    return RunConfig(model=GPT2_SMALL, data=data, routing=Routing(**routing))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("point", POINTS | COUNTED)
def test_parameters_are_those_of_the_built_module(point: str, bias: bool) -> None:
    config = toy((POINTS | COUNTED)[point], bias=bias)
    validate(config)
    with torch.device("meta"):
        gpt = GPT(config.model, config.routing, config.vocab_size)
    assert num_params(config) == gpt.num_parameters()


@pytest.mark.parametrize("embeddings", Embeddings)
@pytest.mark.parametrize("point", ["top2 mixtral", "dense"])
def test_a_head_of_its_own_counts_as_it_is_built_whatever_becomes_of_the_embeddings(
    point: str, embeddings: Embeddings
) -> None:
    tied, untied = toy(POINTS[point]), toy(POINTS[point], tied_head=False, embeddings=embeddings)
    validate(untied)
    with torch.device("meta"):
        gpt = GPT(untied.model, untied.routing, untied.vocab_size)
    head = VOCABULARY * 8
    assert num_params(untied) == gpt.num_parameters() == num_params(tied) + head
    assert num_active_params(untied) == num_active_params(tied) + head
    counted, _ = count(untied)
    assert flops_per_token(untied) == flops_per_token(tied) == pytest.approx(counted, rel=1e-12)


def rows_by_design(routing: Routing, experts: int) -> int:
    """Expert rows of one token, written out again."""
    return experts if routing.selection is Selection.ALL else routing.k * routing.granularity


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("point", POINTS)
def test_active_parameters_are_all_but_the_experts_that_a_token_does_not_take(point: str, bias: bool) -> None:
    config = toy(POINTS[point], bias=bias)
    with torch.device("meta"):
        gpt = GPT(config.model, config.routing, config.vocab_size)
    idle = 0
    for layer in gpt.modules():
        if isinstance(layer, MixtureLayer):
            one_expert = sum(p[0].numel() for p in layer.experts.parameters())
            idle += (layer.num_experts - rows_by_design(config.routing, layer.num_experts)) * one_expert
    assert num_active_params(config) == gpt.num_parameters() - idle


@pytest.mark.parametrize("bias", every(2, [True, False]))
@pytest.mark.parametrize("point", POINTS)
def test_flops_are_those_that_pytorch_counts(point: str, bias: bool) -> None:
    config = toy(POINTS[point], bias=bias)
    counted, _ = count(config)
    assert flops_per_token(config) == pytest.approx(counted, rel=1e-12)


@pytest.mark.parametrize("point", COUNTED)
def test_flops_with_measured_rows_are_those_that_pytorch_counts(point: str) -> None:
    config = toy(COUNTED[point])
    counted, rows = count(config)
    assert flops_per_token(config, rows_per_token=rows) == pytest.approx(counted, rel=1e-12)


def count(config: RunConfig) -> tuple[float, float]:
    """PyTorch's FLOPs a token of one forward pass, and the mean expert rows a token over the mixture layers."""
    # In float64 the experts run one by one, in products that the counter knows; so does attention's plain form.
    gpt = GPT(config.model, config.routing, config.vocab_size).double().eval()
    tokens_BT = torch.randint(VOCABULARY, (2, config.model.context), generator=torch.Generator().manual_seed(0))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        stats = gpt(tokens_BT, label_B=torch.tensor([1, 0])).stats
    rows = sum(int(layer.executed) for layer in stats) / max(len(stats), 1)
    return counter.get_total_flops() / tokens_BT.numel(), rows / tokens_BT.numel()


def test_measured_rows_replace_the_nominal_ones() -> None:
    config = toy(TOP_K["top2 mixtral"])
    assert num_active_params(config, rows_per_token=2) == num_active_params(config)
    assert flops_per_token(config, rows_per_token=2) == flops_per_token(config)
    fewer = toy(TOP_K["top1"])
    assert num_active_params(config, rows_per_token=1) == num_active_params(fewer)
    assert flops_per_token(config, rows_per_token=1.5) == (flops_per_token(config) + flops_per_token(fewer)) / 2


def test_measured_rows_leave_dense_layers_alone() -> None:
    config = toy(TOP_K["every second layer"])
    one_expert = 2 * 8 * 12 + 12 + 8
    assert num_active_params(config, rows_per_token=3) - num_active_params(config) == one_expert


# The study paper's totals in millions (2402.13089); it rounds some of them up.
@pytest.mark.parametrize(
    ("routing", "total", "active"),
    [
        ({"selection": Selection.DENSE}, 124, 124),
        ({"selection": Selection.DENSE, "ffn_multiplier": 2.0}, 182, 182),
        ({"selection": Selection.DENSE, "ffn_multiplier": 4.0}, 295, 295),
        ({"num_experts": 4, "k": 1}, 295, 124),
        ({"num_experts": 4, "k": 2, "gate": Gate.PICK_THEN_SOFTMAX}, 295, 182),
    ],
)
def test_the_study_paper_s_models_have_their_published_sizes(routing: dict[str, Any], total: int, active: int) -> None:
    config = gpt2_small(**routing)
    assert abs(num_params(config) / 1e6 - total) < 1
    assert abs(num_active_params(config) / 1e6 - active) < 1


def test_a_mixture_is_its_dense_twin_plus_routers_and_the_biases_of_its_experts() -> None:
    twin = gpt2_small(selection=Selection.DENSE, ffn_multiplier=4.0)
    routers, biases = 12 * 768 * 4, 12 * 3 * 768
    assert num_params(gpt2_small(num_experts=4)) - num_params(twin) == routers + biases


def test_flops_of_gpt2_small_are_near_two_for_each_weight_and_token() -> None:
    """Kaplan et al. (2001.08361): 2 N without embeddings, plus attention's products with the context."""
    dense = gpt2_small(selection=Selection.DENSE)
    weights = 12 * (12 * 768**2) + 50257 * 768
    assert flops_per_token(dense) == 2 * weights + 12 * 4 * 1024 * 768


def test_granularity_keeps_parameters_of_experts_and_flops() -> None:
    whole = toy(Routing(num_experts=3, k=2), bias=False)
    split = toy(Routing(num_experts=3, k=2, granularity=4), bias=False)
    routers = 3 * 8 * 9  # layers, width, additional experts
    assert num_params(split) - num_params(whole) == routers
    assert flops_per_token(split) - flops_per_token(whole) == 2 * routers


def test_xmoe_formula_of_mixture_flops() -> None:
    """2 d N + 4 d d_e k a token (facts on XMoE), from a mixture's difference to a dense layer."""
    mixture = toy(Routing(num_experts=16, k=4, expert_size=3, layers=(1,)))
    dense = toy(Routing(selection=Selection.DENSE))
    d, hidden = 8, 12
    assert flops_per_token(mixture) - flops_per_token(dense) == 2 * d * 16 + 4 * d * 3 * 4 - 4 * d * hidden


@pytest.mark.parametrize("point", POINTS | COUNTED)
def test_what_runs_outside_of_feed_forward_networks_is_the_same_for_every_routing(point: str) -> None:
    config, dense = toy((POINTS | COUNTED)[point]), toy(Routing(selection=Selection.DENSE))
    around = flops_per_token(dense) - dense.model.layers * 4 * dense.model.width * dense.model.hidden
    assert flops_per_token(config) - ffn_flops_per_token(config) == pytest.approx(around)
    assert 0 <= expert_flops_per_token(config) <= ffn_flops_per_token(config)


def test_experts_alone_are_the_rows_that_ran_without_routers_and_networks_between_mixtures() -> None:
    fine = gpt2_small(num_experts=8, granularity=8, layers="every_second", shared_experts=1)
    row = 4 * 768 * (4 * 768 // 8)
    assert expert_flops_per_token(fine) == 6 * (8 + 1) * row
    assert expert_flops_per_token(fine, 2.5) == 6 * (2.5 + 1) * row
    rates = {layer: float(layer) for layer in range(1, 12, 2)}
    assert expert_flops_per_token(fine, rates) == (sum(rates.values()) + 6) * row
    routers, plain = 6 * 2 * 768 * 64, 6 * 4 * 768 * 4 * 768
    assert ffn_flops_per_token(fine) == expert_flops_per_token(fine) + routers + plain
    assert expert_flops_per_token(gpt2_small(selection=Selection.DENSE)) == 0
    assert ffn_flops_per_token(gpt2_small(selection=Selection.DENSE)) == 2 * plain
