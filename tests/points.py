"""Random points of the design space for property tests: most are valid, the others must be refused in words."""

import os
from typing import Any

from hypothesis import strategies as st

from moe_study.design.config import DataConfig, Embeddings, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    AFTER_PICK,
    FIXED_ROUTERS,
    Balance,
    Capacity,
    Choices,
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
from moe_study.design.routing_validation import UNIT_CONTEXTS
from moe_study.design.selections import PICKING, SELECTIONS

VOCABULARY = 257  # as few as data allows: with fewer, validation would refuse every point
SCORING = tuple(kind for kind in RouterKind if kind not in FIXED_ROUTERS)


def examples(number: int) -> int:
    """How many points to draw: in CI `number`, and elsewhere two fifths of that, for `make test` is run often."""
    return number if os.environ.get("CI") else 2 * number // 5


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    heads = draw(st.integers(1, 2))
    embeddings = draw(_rarely(st.sampled_from(Embeddings), Embeddings.LEARNED))
    return ModelConfig(
        layers=draw(st.integers(1, 3)),
        heads=heads,
        width=heads * draw(st.sampled_from([4, 6, 8])),
        context=draw(st.sampled_from([8, 12, 13, 24])),
        ffn_size=draw(st.sampled_from([None, 12, 16])),
        bias=draw(st.booleans()),
        document_attention=draw(st.booleans()),
        embeddings=embeddings,
        tied_head=embeddings is Embeddings.LEARNED and draw(_rarely(st.just(False), True)),
    )


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    if draw(st.integers(0, 2)):
        return Capacity()
    return Capacity(
        draw(st.sampled_from([0.25, 1.0, 1.25, 8.0])),
        draw(st.sampled_from(Priority)),
        draw(st.sampled_from(Group)),
        draw(st.sampled_from([1, 2])),
    )


@st.composite
def balances(draw: st.DrawFn, selection: Selection) -> Balance:
    weight = st.sampled_from([0.0, 0.0, 0.01])
    bias_rate = draw(weight) if selection is Selection.TOP_K else 0.0
    choices = st.sampled_from([None, None, Choices.FIRST, *([Choices.ALL] if selection in PICKING else [])])
    scope = st.sampled_from(["micro_batch", "batch"])
    return Balance(draw(weight), draw(weight), bias_rate, draw(scope), draw(choices))


@st.composite
def softs(draw: st.DrawFn) -> Soft:
    """Lengths go with their form."""
    form = draw(st.sampled_from(SoftForm))
    chunked = form in (SoftForm.CHUNK, SoftForm.CHUNK_LAGGED)
    sequence = form is SoftForm.SEQUENCE
    weights = st.sampled_from([SoftWeights.SOFT, *(SoftWeights if sequence else [SoftWeights.UNIFORM])])
    return Soft(
        form,
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([1, 3, 4, 50])) if chunked else None,
        draw(st.sampled_from([1, 2, 4])) if form is SoftForm.ACROSS_BATCH else None,
        draw(weights),
        draw(weights),
        draw(st.booleans()),
    )


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    """Axes that must go together do; all others are drawn freely, and rare values rarely."""
    selection = draw(st.sampled_from([Selection.TOP_K, *Selection]))
    if selection is Selection.DENSE:
        return Routing(selection=selection, ffn_multiplier=draw(st.sampled_from([0.5, 1.0, 2.0])))
    if selection is Selection.SOFT:
        return Routing(selection=selection, soft=draw(softs()), **draw(_sizes()))
    unit = Unit.TOKEN if selection is Selection.EXPERT_CHOICE else draw(st.sampled_from(Unit))
    context = draw(st.sampled_from(UNIT_CONTEXTS[unit]))
    after_pick = SELECTIONS[selection].gates_after_pick
    state = st.just(RouterState.LEARNED) if SELECTIONS[selection].any_number else st.sampled_from(RouterState)
    axes: dict[str, Any] = {"router": draw(_routers(selection, unit, context))}
    if axes["router"] in SCORING:
        axes |= {
            "balance": draw(balances(selection)),
            "router_noise": draw(_rarely(st.just(0.5), 0.0)),
            "router_state": draw(_rarely(state, RouterState.LEARNED)),
            "threshold_budget": draw(_rarely(st.just(1.5), None)) if selection is Selection.THRESHOLD else None,
        }
    if context is Context.PREVIOUS_SEGMENT:
        axes["first_segment"] = draw(st.sampled_from(["prior", "own_mean"]))
    return Routing(
        selection=selection,
        unit=unit,
        segment_length=draw(st.sampled_from([1, 3, 4, 50])) if unit is Unit.SEGMENT else None,
        context=context,
        prefix_length=draw(st.sampled_from([1, 3, 4])) if context is Context.PREFIX else None,
        scope=draw(st.sampled_from(Scope)),
        router_depth=draw(st.integers(1, 2)),
        router_width=draw(st.sampled_from([0.5, 1.0, 2.0])),
        shuffle=selection in PICKING and draw(_rarely(st.just(True), False)),
        threshold=draw(st.sampled_from([0.0, 0.3, 0.9])),  # at 1 rounding alone says where a token stops
        choice_scope=draw(st.sampled_from(ChoiceScope)),
        gate=draw(st.sampled_from([gate for gate in Gate if after_pick or gate not in AFTER_PICK])),
        renormalise=draw(_rarely(st.just(True), False)),
        capacity=draw(capacities()) if unit is Unit.TOKEN and selection in PICKING else Capacity(),
        k=draw(st.integers(1, 3)),
        **axes,
        **draw(_sizes()),
    )


def _rarely(strategy: st.SearchStrategy[Any], usual: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 3).flatmap(lambda n: strategy if n == 0 else st.just(usual))


def _routers(selection: Selection, unit: Unit, context: Context) -> st.SearchStrategy[RouterKind]:
    if context is Context.LABEL:
        return st.just(RouterKind.LABEL)  # and refused with any selection but top_k
    if unit is Unit.TOKEN and context is Context.OWN and selection is Selection.TOP_K:
        return st.sampled_from([*SCORING, RouterKind.HASH])
    return st.sampled_from(SCORING)


@st.composite
def _sizes(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "num_experts": draw(_rarely(st.sampled_from([1, 12, 24, (4, 2)]), draw(st.sampled_from([2, 3, 4, 8])))),
        "expert_size": draw(st.sampled_from([None, 4, 6])),
        "ffn_multiplier": draw(st.sampled_from([1.0, 0.5])),
        "granularity": draw(_rarely(st.just(2), 1)),
        "shared_experts": draw(_rarely(st.just(1), 0)),
        "layers": draw(_rarely(st.sampled_from(["every_second", (0,), (0, 2)]), "all")),
    }


@st.composite
def points(draw: st.DrawFn) -> RunConfig:
    rows = draw(st.sampled_from([2, 4]))
    return RunConfig(
        model=draw(models()),
        routing=draw(routings()),
        data=DataConfig(tokenizer=TokenizerConfig("bpe", VOCABULARY)),
        run=RunSettings(steps=2, batch_size=rows, eval_batch=rows),
    )
