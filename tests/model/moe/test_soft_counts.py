"""What a soft layer records and what it costs, against the built module."""

import dataclasses
import functools
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design.accounting import flops_per_token, num_params
from moe_study.design.routing import Routing, Selection, Soft, SoftWeights
from moe_study.design.validation import validate
from moe_study.errors import StudyError
from moe_study.model.gpt import GPT
from moe_study.model.moe.build import build_ffn
from tests.model.moe.soft_cases import (
    ABLATIONS,
    ACROSS,
    EXPERTS,
    FORMS,
    LAGGED,
    LENGTH,
    PREFIX,
    TOKENS_ACROSS,
    WIDTH,
    build,
    config_of,
    name,
    reference,
    run,
    tokens,
)

# ---- records


def test_every_expert_runs_the_same_rows_and_weights_tell_its_use() -> None:
    layer, x_BTD = build(Soft(slots_per_expert=2)), tokens()
    _, stats = run(layer, x_BTD, detail=True)
    assert stats.kept_E.tolist() == [4 * 2] * EXPERTS
    assert stats.wanted == stats.executed == 4 * 2 * EXPERTS
    assert stats.kept_BE is not None and stats.weight_BE is not None and layer.scores is not None
    assert stats.kept_BE.tolist() == [[2] * EXPERTS] * 4
    combine_BTE = layer.scores(x_BTD).softmax(2).unflatten(2, (EXPERTS, 2)).sum(3)
    torch.testing.assert_close(stats.weight_BE, combine_BTE.sum(1).detach())
    torch.testing.assert_close(stats.entropy, -(combine_BTE * combine_BTE.log()).sum(2).mean().detach())
    assert run(layer, x_BTD)[1].kept_BE is None


def test_the_first_chunk_counts_for_expert_zero() -> None:
    layer, x_BTD = build(LAGGED), tokens()
    _, stats = run(layer, x_BTD, detail=True)
    assert stats.kept_E.tolist() == [4 * (5 + 2), 4 * 2, 4 * 2, 4 * 2]  # two later chunks
    assert stats.weight_BE is not None and stats.kept_BE is not None and layer.scores is not None
    later_BE = layer.scores(x_BTD)[:, 5:].softmax(2).sum(1).detach()
    torch.testing.assert_close(stats.weight_BE, later_BE + torch.tensor([5.0, 0, 0, 0], dtype=torch.float64))
    _, short = run(layer, x_BTD[:, :3], detail=True)
    assert short.kept_E.tolist() == [4 * 3, 0, 0, 0] and short.entropy.isnan()


@pytest.mark.parametrize("length", [1, 5, 12])
@pytest.mark.parametrize("soft", FORMS, ids=name)
def test_rows_by_sequence_add_up(soft: Soft, length: int) -> None:
    _, stats = run(build(soft), tokens(length=length), detail=True)
    assert stats.kept_BE is not None and stats.weight_BE is not None
    assert stats.kept_BE.dtype is torch.int64
    assert stats.kept_BE.sum(0).tolist() == stats.kept_E.tolist()
    assert stats.weight_BE.shape == (4, EXPERTS)
    if soft.combine is SoftWeights.SOFT:
        torch.testing.assert_close(stats.weight_BE.sum(1), torch.full((4,), length, dtype=torch.float64))


def test_a_group_that_the_batch_does_not_fill_is_refused_in_training() -> None:
    with pytest.raises(StudyError, match="3 sequences cannot be mixed in groups"):
        run(build(ACROSS).train(), tokens(sequences=3))


@pytest.mark.parametrize("soft", [ACROSS, TOKENS_ACROSS], ids=name)
@pytest.mark.parametrize("sequences", [1, 3, 5])
def test_in_evaluation_the_sequences_left_over_mix_among_themselves(soft: Soft, sequences: int) -> None:
    layer = build(dataclasses.replace(soft, group_size=4))
    x_BTD = tokens(sequences=sequences)
    y_BTD, stats = run(layer, x_BTD, detail=True)
    torch.testing.assert_close(y_BTD, reference(layer, x_BTD), rtol=0, atol=1e-12)
    assert stats.kept_BE is not None and stats.kept_BE.sum(0).tolist() == stats.kept_E.tolist()
    y_BTD.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())



# ---- accounting


def product_flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


ALL_POINTS = [
    *(dataclasses.replace(soft, slots_per_expert=p) for soft in FORMS for p in (1, 3)),
    *(Soft(slots_per_expert=3, dispatch=d, combine=c) for d, c in ABLATIONS),
    dataclasses.replace(LAGGED, chunk_length=4),
    dataclasses.replace(LAGGED, chunk_length=40),
    dataclasses.replace(LAGGED, dispatch=SoftWeights.UNIFORM),
    dataclasses.replace(PREFIX, dispatch=SoftWeights.UNIFORM, combine=SoftWeights.UNIFORM),
]


@pytest.mark.parametrize("soft", ALL_POINTS, ids=lambda soft: f"{name(soft)}-{soft.chunk_length}")
@pytest.mark.parametrize("shared", [0, 1])
def test_parameters_and_flops_are_those_of_the_built_module(soft: Soft, shared: int) -> None:
    config = config_of(soft, shared_experts=shared)
    validate(config)
    model = GPT(config.model, config.routing, config.vocab_size)
    assert model.num_parameters() == num_params(config)
    dense = dataclasses.replace(config, routing=Routing(selection=Selection.DENSE))
    mlp = build_ffn(config.model, dense.routing, 0, config.vocab_size).double()
    layer, x_BTD = build(soft, shared_experts=shared), tokens()
    counted = product_flops(lambda: run(layer, x_BTD)) - product_flops(lambda: mlp(x_BTD))
    declared = flops_per_token(config) - flops_per_token(dense)
    assert counted / x_BTD.shape[:2].numel() == pytest.approx(declared, rel=1e-12)


def test_cost_is_flat_in_the_number_of_experts_at_fixed_slots() -> None:
    points = [config_of(Soft(slots_per_expert=24 // n), experts=n) for n in (1, 2, 6, 24)]
    assert len({flops_per_token(config) for config in points}) == 1
    layers = [build(Soft(slots_per_expert=24 // n), experts=n) for n in (1, 2, 6, 24)]
    assert len({product_flops(functools.partial(run, layer, tokens())) for layer in layers}) == 1
    sizes = [sum(p.numel() for p in layer.experts.parameters()) for layer in layers]
    assert sizes == [n * sizes[0] for n in (1, 2, 6, 24)]


def test_as_many_slots_as_tokens_cost_the_dense_network_s_products() -> None:
    config = config_of(Soft(slots_per_expert=3))
    dense = dataclasses.replace(config, routing=Routing(selection=Selection.DENSE))
    routing = 3 * 2 * WIDTH * LENGTH  # logits, dispatch and combine
    assert flops_per_token(config) == flops_per_token(dense) + routing
