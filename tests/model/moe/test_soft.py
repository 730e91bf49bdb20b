"""Soft mixtures: against the equations in plain loops and an independent package, causality, counts."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import soft_moe_pytorch
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design.accounting import flops_per_token, num_params
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import RouterState, Routing, Selection, Soft, SoftForm, SoftWeights
from moe_study.design.validation import problems, validate
from moe_study.errors import StudyError
from moe_study.model.forward_pass import ForwardPass, RoutingStats
from moe_study.model.gpt import GPT
from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.build import build_ffn
from moe_study.model.moe.soft import SoftLayer
from tests.model.moe.soft_reference import soft_layer

WIDTH, LENGTH, EXPERTS = 6, 12, 4
MODEL = ModelConfig(layers=1, heads=2, width=WIDTH, ffn_size=10, context=LENGTH)

SEQUENCE = Soft()
CHUNK = Soft(form=SoftForm.CHUNK, chunk_length=5)
LAGGED = Soft(form=SoftForm.CHUNK_LAGGED, chunk_length=5)
PREFIX = Soft(form=SoftForm.PREFIX)
ACROSS = Soft(form=SoftForm.ACROSS_BATCH, group_size=2)
TOKENS_ACROSS = dataclasses.replace(ACROSS, combine=SoftWeights.DISPATCH, normalise=False)  # as published
FORMS = [SEQUENCE, CHUNK, LAGGED, PREFIX, ACROSS, TOKENS_ACROSS]
ABLATIONS = [
    (SoftWeights.SOFT, SoftWeights.UNIFORM),
    (SoftWeights.UNIFORM, SoftWeights.SOFT),
    (SoftWeights.UNIFORM, SoftWeights.UNIFORM),
    (SoftWeights.IDENTITY, SoftWeights.IDENTITY),
    (SoftWeights.IDENTITY, SoftWeights.SOFT),
    (SoftWeights.SOFT, SoftWeights.IDENTITY),
]


def name(soft: Soft) -> str:
    return f"{soft.form}-{soft.slots_per_expert}-{soft.dispatch}-{soft.combine}"


def routing_of(soft: Soft, experts: int = EXPERTS, **changes: Any) -> Routing:
    return Routing(selection=Selection.SOFT, num_experts=experts, soft=soft, **changes)


def build(soft: Soft, model: ModelConfig = MODEL, seed: int = 0, **changes: Any) -> SoftLayer:
    """A layer in float64 with random weights far from their initial values, so that averages are sharp."""
    layer = build_ffn(model, routing_of(soft, **changes), 0, vocab_size=11)
    assert isinstance(layer, SoftLayer)
    layer.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        if layer.scores is not None and layer.scores.scale is not None:
            layer.scores.scale.fill_(4.0)
    return layer


def tokens(sequences: int = 4, length: int = LENGTH, width: int = WIDTH, seed: int = 1) -> Tensor:
    return torch.randn(sequences, length, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(layer: SoftLayer, x_BTD: Tensor, detail: bool = False) -> tuple[Tensor, RoutingStats]:
    forward_pass = ForwardPass(torch.zeros(x_BTD.shape[:2], dtype=torch.long), detail=detail)
    y_BTD = layer(x_BTD, forward_pass)
    assert y_BTD.shape == x_BTD.shape
    return y_BTD, forward_pass.stats[0]


def reference(layer: SoftLayer, x_BTD: Tensor) -> Tensor:
    weights = {key.rpartition(".")[2]: value.detach().numpy() for key, value in layer.named_parameters()}
    return torch.from_numpy(soft_layer(x_BTD.numpy(), weights, layer.soft, layer.num_experts))


def config_of(soft: Soft, model: ModelConfig = MODEL, **changes: Any) -> RunConfig:
    run = RunSettings(steps=1, batch_size=4, eval_batch=4)
    data = DataConfig(tokenizer=TokenizerConfig(kind="bytes"))
    return RunConfig(model=model, routing=routing_of(soft, **changes), data=data, run=run)


# ---- against the equations


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("length", [1, 4, 5, 11, 12])
@pytest.mark.parametrize("soft", FORMS, ids=name)
def test_every_form_equals_the_equations_at_every_length(soft: Soft, length: int, slots: int) -> None:
    layer = build(dataclasses.replace(soft, slots_per_expert=slots))
    x_BTD = tokens(length=length)
    torch.testing.assert_close(run(layer, x_BTD)[0], reference(layer, x_BTD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [7, 12])
@pytest.mark.parametrize(("dispatch", "combine"), ABLATIONS)
def test_the_ablations_equal_the_equations(dispatch: SoftWeights, combine: SoftWeights, length: int) -> None:
    layer = build(Soft(slots_per_expert=3, dispatch=dispatch, combine=combine))
    x_BTD = tokens(length=length)
    torch.testing.assert_close(run(layer, x_BTD)[0], reference(layer, x_BTD), rtol=0, atol=1e-12)


@pytest.mark.parametrize("soft", [CHUNK, LAGGED, PREFIX, ACROSS], ids=name)
@pytest.mark.parametrize("changed", [{"dispatch": SoftWeights.UNIFORM}, {"combine": SoftWeights.UNIFORM}])
def test_uniform_weights_equal_the_equations_in_the_other_forms(soft: Soft, changed: dict[str, Any]) -> None:
    layer = build(dataclasses.replace(soft, **changed))
    x_BTD = tokens()
    torch.testing.assert_close(run(layer, x_BTD)[0], reference(layer, x_BTD), rtol=0, atol=1e-12)


def test_shared_experts_are_added() -> None:
    layer = build(SEQUENCE, shared_experts=2)
    x_BTD = tokens()
    assert layer.shared is not None
    torch.testing.assert_close(run(layer, x_BTD)[0] - layer.shared(x_BTD), reference(layer, x_BTD))


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_agrees_with_an_independent_package_on_tokens_of_unit_norm(scale: float) -> None:
    # soft-moe-pytorch averages the normalised tokens instead of the plain ones; of unit norm they are equal.
    peer = soft_moe_pytorch.SoftMoE(dim=WIDTH, num_experts=EXPERTS, num_slots=2).double()
    layer = build(Soft(slots_per_expert=2), model=dataclasses.replace(MODEL, ffn_size=4 * WIDTH))
    assert layer.scores is not None and layer.scores.scale is not None
    assert layer.experts.up_bias_EF is not None and layer.experts.down_bias_ED is not None
    with torch.no_grad():
        # The peer adds no 1e-6 to norms: 1 + 1e-6 is made up for, and phi made so long that it does not show.
        layer.scores.scale.fill_(scale * (1 + 1e-6))
        layer.scores.phi_SD.mul_(1e6)
        peer.norm.gamma.fill_(WIDTH**-0.5)  # a factor sqrt(d) stands beside it
        peer.slot_norm.gamma.fill_(scale * WIDTH**-0.5)
        peer.slot_embeds.copy_(layer.scores.phi_SD.view(EXPERTS, 2, WIDTH))
        for e, expert in enumerate(peer.experts.experts):
            expert[0].weight.copy_(layer.experts.up_EDF[e].T)
            expert[0].bias.copy_(layer.experts.up_bias_EF[e])
            expert[3].weight.copy_(layer.experts.down_EFD[e].T)
            expert[3].bias.copy_(layer.experts.down_bias_ED[e])
    x_BTD = torch.nn.functional.normalize(tokens(), dim=-1)
    y_BTD = run(layer, x_BTD)[0]
    torch.testing.assert_close(y_BTD, peer(x_BTD), rtol=0, atol=1e-9 * y_BTD.abs().max().item())
    assert not torch.allclose(run(layer, 2 * x_BTD)[0], peer(2 * x_BTD), atol=0.1)


# ---- what reaches what


@pytest.mark.parametrize("prefix", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("soft", [LAGGED, PREFIX], ids=name)
def test_causal_forms_see_nothing_later_and_no_length(soft: Soft, prefix: int) -> None:
    for seed in range(5):
        layer = build(soft, seed=seed)
        x_BTD = tokens(seed=seed + 10)
        changed_BTD = torch.cat((x_BTD[:, :prefix], 3 * tokens(seed=seed + 20)[:, prefix:]), 1)
        y_BTD = run(layer, x_BTD)[0]
        torch.testing.assert_close(run(layer, changed_BTD)[0][:, :prefix], y_BTD[:, :prefix], rtol=0, atol=1e-12)
        torch.testing.assert_close(run(layer, x_BTD[:, :prefix])[0], y_BTD[:, :prefix], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("soft", "reached"), [(SEQUENCE, range(11)), (CHUNK, (10,))], ids=["sequence", "chunk"])
def test_leaking_forms_show_the_last_token_to_all_that_share_its_slots(soft: Soft, reached: Any) -> None:
    layer, x_BTD = build(soft), tokens()
    changed_BTD = x_BTD.clone()
    changed_BTD[:, -1] *= -2
    difference_BTD = run(layer, changed_BTD)[0] - run(layer, x_BTD)[0]
    moved_BT = difference_BTD.abs().amax(2) > 1e-6
    assert moved_BT[:, list(reached)].all()
    assert not moved_BT[:, [t for t in range(11) if t not in reached]].any()


def test_across_batch_mixes_one_position_of_one_group_and_nothing_else() -> None:
    layer, x_BTD = build(ACROSS), tokens()
    changed_BTD = x_BTD.clone()
    changed_BTD[1, 4] *= -2
    moved_BT = (run(layer, changed_BTD)[0] - run(layer, x_BTD)[0]).abs().amax(2) > 1e-9
    assert moved_BT.nonzero().tolist() == [[0, 4], [1, 4]]


@pytest.mark.parametrize("dispatch", [SoftWeights.SOFT, SoftWeights.UNIFORM])
def test_prefix_is_the_paper_s_layer_on_every_prefix(dispatch: SoftWeights) -> None:
    # Kept apart from the plain-loops reference: two forms of the package that share no way of averaging.
    layer = build(dataclasses.replace(PREFIX, slots_per_expert=2, dispatch=dispatch))
    paper = build(dataclasses.replace(SEQUENCE, slots_per_expert=2, dispatch=dispatch))
    paper.load_state_dict(layer.state_dict())
    x_BTD = tokens()
    last = [run(paper, x_BTD[:, : t + 1])[0][:, -1] for t in range(LENGTH)]
    torch.testing.assert_close(run(layer, x_BTD)[0], torch.stack(last, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("soft", [LAGGED, PREFIX], ids=name)
def test_running_averages_stay_exact_where_powers_of_e_overflow(soft: Soft) -> None:
    layer = build(soft)
    x_BTD = tokens()
    assert layer.scores is not None and layer.scores.scale is not None
    with torch.no_grad():
        layer.scores.scale.fill_(2000.0)
    torch.testing.assert_close(run(layer, x_BTD)[0], reference(layer, x_BTD), rtol=0, atol=1e-9)
    single = layer.float()
    y_BTD = run(single, x_BTD.float())[0]
    y_BTD.square().sum().backward()
    assert y_BTD.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in single.parameters())


def test_the_paper_s_layer_does_not_know_the_order_of_tokens() -> None:
    layer, x_BTD = build(SEQUENCE), tokens()
    order_T = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(run(layer, x_BTD[:, order_T])[0], run(layer, x_BTD)[0][:, order_T])


def test_mixture_of_tokens_does_not_know_the_order_of_a_group_s_sequences() -> None:
    layer, x_BTD = build(TOKENS_ACROSS), tokens()
    order_B = torch.tensor([1, 0, 3, 2])
    torch.testing.assert_close(run(layer, x_BTD[order_B])[0], run(layer, x_BTD)[0][order_B])
    across_groups_B = torch.tensor([2, 1, 0, 3])
    assert not torch.allclose(run(layer, x_BTD[across_groups_B])[0], run(layer, x_BTD)[0][across_groups_B])


def test_the_order_of_an_expert_s_slots_and_of_experts_does_not_matter() -> None:
    layer, x_BTD = build(Soft(slots_per_expert=2)), tokens()
    before_BTD = run(layer, x_BTD)[0]
    order_E = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        assert layer.scores is not None
        phi_EpD = layer.scores.phi_SD.view(EXPERTS, 2, WIDTH)
        layer.scores.phi_SD.copy_(phi_EpD[order_E].flip(1).flatten(0, 1))
        for parameter in layer.experts.parameters():
            parameter.copy_(parameter[order_E])
    torch.testing.assert_close(run(layer, x_BTD)[0], before_BTD)


def test_equal_experts_and_uniform_weights_give_every_token_the_same() -> None:
    layer = build(Soft(dispatch=SoftWeights.UNIFORM, combine=SoftWeights.UNIFORM))
    y_BTD = run(layer, tokens())[0]
    torch.testing.assert_close(y_BTD, y_BTD[:, :1].expand_as(y_BTD))


# ---- initial values and router states


def initialised(soft: Soft, seed: int = 0, **changes: Any) -> SoftLayer:
    layer = build(soft, **changes)
    Initialiser(seed, MODEL).module(layer, "blocks.0.ffn")
    return layer


def test_the_scale_starts_at_one_and_experts_start_different() -> None:
    layer = initialised(SEQUENCE)
    assert layer.scores is not None and layer.scores.scale is not None
    assert layer.scores.scale.item() == 1
    assert len({weights.sum().item() for weights in layer.experts.up_EDF}) == EXPERTS


def test_a_slot_starts_equal_whatever_the_number_of_slots() -> None:
    few, many = initialised(SEQUENCE, experts=2), initialised(SEQUENCE, experts=5)
    assert few.scores is not None and many.scores is not None
    assert torch.equal(few.scores.phi_SD, many.scores.phi_SD[:2])


def test_router_states_hold_for_phi() -> None:
    learned, frozen, redrawn = (initialised(SEQUENCE, router_state=state) for state in RouterState)
    assert learned.scores is not None and frozen.scores is not None and redrawn.scores is not None
    assert all(p.requires_grad for p in learned.scores.parameters())
    assert not any(p.requires_grad for s in (frozen, redrawn) for p in s.scores.parameters())  # type: ignore[union-attr]
    drawn = []
    for step in (1, 2, 1):
        for layer in (learned, frozen, redrawn):
            layer.begin_step(step)
        drawn.append(redrawn.scores.phi_SD.clone())
        assert torch.equal(frozen.scores.phi_SD, learned.scores.phi_SD)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], frozen.scores.phi_SD)


@pytest.mark.parametrize("soft", FORMS, ids=name)
def test_every_trained_parameter_gets_a_finite_gradient(soft: Soft) -> None:
    layer = build(soft)
    run(layer, tokens(length=11))[0].square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("soft", [CHUNK, LAGGED, TOKENS_ACROSS], ids=name)
def test_a_compiled_layer_gives_the_same(soft: Soft) -> None:
    layer, x_BTD = build(soft).float(), tokens().float()
    expected_BTD, stats = run(layer, x_BTD, detail=True)
    torch.compiler.reset()
    layer.compile(backend="eager")  # what is captured is tested here; generating code is torch's affair
    y_BTD, compiled = run(layer, x_BTD, detail=True)
    torch.testing.assert_close(y_BTD, expected_BTD, rtol=1e-4, atol=1e-3)
    assert torch.equal(compiled.kept_E, stats.kept_E)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_any_size_of_rows_have_the_gradient_of_the_plain_formula(dtype: torch.dtype) -> None:
    scores = build(SEQUENCE).to(dtype).scores
    assert scores is not None and scores.scale is not None
    size_T1 = torch.tensor([0, 1e-30, 1e-21, 1e-7, 1e-3, 1, 1e3], dtype=dtype).unsqueeze(1)
    x_BTD = (tokens(length=7).to(dtype) * size_T1).requires_grad_()
    wide_BTD = x_BTD.detach().double().requires_grad_()
    norm_BT1 = torch.where(size_T1 > 0, wide_BTD, 1).pow(2).sum(2, keepdim=True).sqrt() * (size_T1 > 0)
    phi_SD = scores.phi_SD.detach().double()
    unit_SD = scores.scale.double() * phi_SD / (phi_SD.pow(2).sum(1, keepdim=True).sqrt() + 1e-6)
    expected_BTS = wide_BTD / (norm_BT1 + 1e-6) @ unit_SD.T
    projection_BTS = torch.randn(expected_BTS.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits_BTS = scores(x_BTD)
    (found,) = torch.autograd.grad((logits_BTS * projection_BTS.to(dtype)).sum(), x_BTD)
    (wanted,) = torch.autograd.grad((expected_BTS * projection_BTS).sum(), wide_BTD)
    of_one_size_BT1 = norm_BT1.detach() + 1e-6  # what a row's gradient is divided by
    tolerance = 1e-9 if dtype is torch.float64 else 2e-4
    for gradient, reference in ((logits_BTS, expected_BTS), (found * of_one_size_BT1, wanted * of_one_size_BT1)):
        torch.testing.assert_close(gradient.double(), reference, rtol=tolerance, atol=tolerance)


def test_scores_keep_float32_under_autocast() -> None:
    layer = build(SEQUENCE).float()
    assert layer.scores is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.scores(tokens().float()).dtype is torch.float32
        y_BTD = run(layer, tokens().float())[0]
    torch.testing.assert_close(y_BTD.double(), run(layer.double(), tokens())[0], rtol=0.05, atol=0.5)


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


# ---- validation


@pytest.mark.parametrize(
    ("soft", "sentence"),
    [
        (Soft(dispatch=SoftWeights.DISPATCH), "dispatch=dispatch has no meaning"),
        (dataclasses.replace(LAGGED, combine=SoftWeights.DISPATCH), "weights they were averaged with"),
        (dataclasses.replace(PREFIX, combine=SoftWeights.DISPATCH), "weights they were averaged with"),
        (Soft(dispatch=SoftWeights.UNIFORM, combine=SoftWeights.DISPATCH), "weights they were averaged with"),
        (Soft(form=SoftForm.CHUNK), "chunk_length"),
        (Soft(group_size=2), "group_size"),
        (Soft(form=SoftForm.ACROSS_BATCH, group_size=3), "must divide the micro-batch of 4"),
        (Soft(dispatch=SoftWeights.IDENTITY), "num_experts [*] slots_per_expert = model.context"),
    ],
)
def test_meaningless_points_are_refused_with_a_sentence(soft: Soft, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        validate(config_of(soft))


@pytest.mark.parametrize("soft", FORMS, ids=name)
def test_every_form_is_a_valid_point(soft: Soft) -> None:
    assert list(problems(config_of(soft))) == []
