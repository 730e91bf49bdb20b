"""Random points of the whole design space: each is refused with a sentence, or trains."""

from typing import Any

import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from moe_study.design.accounting import num_params
from moe_study.design.routing import (
    Balance,
    Capacity,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    RouterKind,
    RouterState,
    Routing,
    Scope,
    Selection,
    Soft,
    SoftForm,
    SoftWeights,
    Unit,
)
from moe_study.design.validation import UNIT_CONTEXTS, problems
from moe_study.model.gpt import GPT, Output
from moe_study.model.moe.layer import MixtureLayer
from tests.design.points import VOCABULARY, toy

ROWS, LENGTH = 4, 10


def mostly(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    """Three draws in four the usual value, so that many points have a meaning."""
    return st.integers(0, 3).flatmap(lambda n: st.sampled_from(others) if n == 0 else st.just(usual))


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    unit = draw(st.sampled_from(list(Unit)))
    context = draw(st.sampled_from(UNIT_CONTEXTS[unit]))
    selection = draw(st.sampled_from([s for s in Selection if s is not Selection.DENSE]))
    if selection in (Selection.SOFT, Selection.EXPERT_CHOICE):
        unit, context = Unit.TOKEN, Context.OWN
    by_score = selection not in (Selection.SOFT, Selection.EXPERT_CHOICE, Selection.MERGE)
    if context is Context.LABEL:
        router, selection = RouterKind.LABEL, Selection.TOP_K
    else:
        router = draw(st.sampled_from([RouterKind.LINEAR, RouterKind.MLP]) if by_score else st.just(RouterKind.LINEAR))
    limited = unit is Unit.TOKEN and selection in (Selection.TOP_K, Selection.THRESHOLD)
    balanced = selection is not Selection.SOFT and router is not RouterKind.LABEL
    form = draw(st.sampled_from(list(SoftForm)))
    chunked = form in (SoftForm.CHUNK, SoftForm.CHUNK_LAGGED)
    return Routing(
        selection=selection,
        unit=unit,
        context=context,
        segment_length=draw(st.integers(1, 11)) if unit is Unit.SEGMENT else None,
        prefix_length=draw(st.integers(1, 9)) if context is Context.PREFIX else None,
        first_segment=draw(
            st.sampled_from(["prior", "own_mean"] if context is Context.PREVIOUS_SEGMENT else ["prior"])
        ),
        scope=draw(mostly(Scope.LAYER, Scope.GLOBAL)),
        router=draw(mostly(router, *RouterKind)),
        router_depth=draw(st.integers(1, 2)),
        router_state=draw(mostly(RouterState.LEARNED, *RouterState)),
        router_noise=draw(mostly(0.0, 0.3)),
        shuffle=draw(mostly(False, True)) if limited else False,
        num_experts=draw(mostly(4, 1, 3, 6, (2, 5))),
        k=draw(st.integers(1, 3)),
        threshold=draw(st.floats(0, 1)),
        threshold_budget=draw(mostly(None, 1.5)) if selection is Selection.THRESHOLD else None,
        choice_scope=draw(st.sampled_from(list(ChoiceScope))),
        gate=draw(mostly(Gate.SOFTMAX_THEN_PICK, *Gate)),
        renormalise=draw(mostly(False, True)),
        granularity=draw(mostly(1, 2, 3)),
        shared_experts=draw(mostly(0, 1)),
        layers=draw(mostly("all", "every_second", (0,), (1,))),
        capacity=Capacity(
            factor=draw(st.sampled_from([None, 0.5, 1.25])) if limited else None,
            priority=draw(st.sampled_from(list(Priority))),
            group=draw(st.sampled_from(list(Group))),
        ),
        balance=draw(st.sampled_from([Balance(), Balance(switch=0.01, z=0.001)])) if balanced else Balance(),
        soft=Soft(
            form=form,
            slots_per_expert=draw(st.integers(1, 2)),
            chunk_length=draw(st.integers(1, 11)) if chunked else None,
            group_size=draw(st.sampled_from([1, 2, 4])) if form is SoftForm.ACROSS_BATCH else None,
            dispatch=draw(mostly(SoftWeights.SOFT, *SoftWeights)),
            combine=draw(mostly(SoftWeights.SOFT, *SoftWeights)),
        ),
    )


@settings(max_examples=100, deadline=None)
@given(routings(), st.booleans(), st.booleans())
def test_a_point_is_refused_with_a_sentence_or_trains_two_steps(routing: Routing, bfloat16: bool, bias: bool) -> None:
    config = toy(routing, layers=2, bias=bias)
    if found := list(problems(config)):
        event("refused")
        assert all(len(sentence) > 20 for sentence in found)
        return
    event(f"trains: {routing.selection}")
    torch.manual_seed(0)
    gpt = GPT(config.model, routing, VOCABULARY)
    assert gpt.num_parameters() == num_params(config)
    trained = [p for p in gpt.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for step in range(2):
        optimizer.zero_grad(set_to_none=True)
        gpt.begin_step(step)
        output = forward(gpt, step, bfloat16)
        assert output.loss is not None
        (output.loss + output.aux_loss).backward()
        assert output.loss.isfinite() and output.aux_loss.isfinite()
        check_gradients(gpt, output)
        optimizer.step()
        gpt.end_step()
    with torch.no_grad():
        loss = forward(gpt.eval(), 2, bfloat16).loss
        assert loss is not None and loss.isfinite()


def forward(gpt: GPT, step: int, bfloat16: bool) -> Output:
    generator = torch.Generator().manual_seed(step)
    tokens_BT = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        return gpt(tokens_BT[:, :-1], tokens_BT[:, 1:], label_B=torch.arange(ROWS) % 2, detail=True)


def check_gradients(gpt: GPT, output: Output) -> None:
    """Every trained parameter has a finite gradient, and those of experts that received tokens are not zero."""
    for name, parameter in gpt.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for stats in output.stats:
        layer = gpt.get_submodule(f"blocks.{stats.layer}.ffn")
        if isinstance(layer, MixtureLayer):
            assert layer.experts.up_EDF.grad is not None
            received = stats.kept_E > 0
            assert ((layer.experts.up_EDF.grad != 0).flatten(1).any(1) == received).all()
            assert stats.executed == stats.kept_E.sum() <= stats.wanted
