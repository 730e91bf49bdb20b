"""Soft mixtures: against the equations in plain loops and an independent package, causality, and what is refused."""

import dataclasses
from typing import Any

import pytest
import soft_moe_pytorch
import torch

from moe_study.design.routing import Soft, SoftForm, SoftWeights
from moe_study.design.validation import problems, validate
from moe_study.errors import StudyError
from tests.model.moe.soft_cases import (
    ABLATIONS,
    ACROSS,
    CHUNK,
    EXPERTS,
    FORMS,
    LAGGED,
    LENGTH,
    MODEL,
    PREFIX,
    SEQUENCE,
    TOKENS_ACROSS,
    WIDTH,
    build,
    config_of,
    name,
    reference,
    run,
    tokens,
)

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
