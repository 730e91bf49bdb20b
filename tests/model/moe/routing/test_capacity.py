"""Capacity limits against naive loops over pairs in order of priority, on cases full of ties."""

import math
import random

import pytest
import torch

from moe_study.design.routing import Capacity, Group, Priority, Routing, Selection
from moe_study.design.selections import PICKING
from moe_study.model.moe.routing.capacity import CapacityLimit
from moe_study.model.moe.routing.gate import RoutingDecision
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, states

Pair = tuple[int, int, int]  # sequence, position, rank


def random_picks(rng: random.Random, sequences: int, length: int, experts: int, k: int) -> RoutingDecision:
    """Distinct experts by descending probability, quantised so that many are equal; some candidates do not count."""
    rows = sequences * length
    probability = [sorted((rng.randint(0, 4) / 16 for _ in range(k)), reverse=True) for _ in range(rows)]
    keep = [sorted((rng.random() < 0.7 for _ in range(k)), reverse=True) for _ in range(rows)]
    for row in keep:
        row[0] = True
    expert = [rng.sample(range(experts), k) for _ in range(rows)]
    return RoutingDecision(
        torch.tensor(expert),
        torch.rand(rows, k) + 0.5,
        torch.tensor(keep) if rng.random() < 0.5 else None,
        torch.tensor(probability),
    )


def kept_by_loops(decision: RoutingDecision, sequences: int, limit: Capacity, slots: int) -> set[Pair]:
    """Pairs in order of priority, each kept while its expert has room."""
    rows, k = decision.expert_RK.shape
    length = rows // sequences
    assert decision.probability_RK is not None
    p, experts, counts = decision.probability_RK.tolist(), decision.expert_RK.tolist(), decision.mask().tolist()
    pairs = [(r // length, r % length, rank) for r in range(rows) for rank in range(k) if counts[r][rank]]

    def importance(pair: Pair) -> tuple[float, ...]:
        b, t, rank = pair
        row = p[b * length + t]
        return {
            Priority.TOKEN_MAJOR: (b, t, rank),
            Priority.CHOICE_MAJOR: (rank, b, t),
            Priority.RANK_PROBABILITY: (rank, -row[rank], b, t),
            Priority.BATCH_PRIORITY: (rank, -max(row), b, t),
        }[limit.priority]

    taken: dict[tuple[int, int], int] = {}
    kept = set()
    for b, t, rank in sorted(pairs, key=importance):
        place = (b if limit.group is Group.SEQUENCE else 0, experts[b * length + t][rank])
        if taken.get(place, 0) < slots:
            taken[place] = taken.get(place, 0) + 1
            kept.add((b, t, rank))
    return kept


def as_pairs(decision: RoutingDecision, sequences: int) -> set[Pair]:
    length = decision.expert_RK.shape[0] // sequences
    return {(r // length, r % length, rank) for r, rank in decision.mask().nonzero().tolist()}


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("priority", Priority)
def test_pairs_are_kept_in_order_of_priority(priority: Priority, group: Group) -> None:
    bound = 0
    for seed in range(80):
        rng = random.Random(seed)
        sequences, length, experts = rng.randint(1, 3), rng.randint(1, 9), rng.randint(1, 6)
        k = rng.randint(1, experts)
        limit = Capacity(rng.choice([0.3, 0.5, 1.0, 1.25]), priority, group, minimum=rng.choice([1, 1, 3]))
        routing = Routing(num_experts=experts, k=k, capacity=limit)
        decision = random_picks(rng, sequences, length, experts, k)
        tokens = length if group is Group.SEQUENCE else sequences * length
        slots = max(math.ceil(round(limit.factor * k * tokens / experts, 9)), limit.minimum)  # type: ignore[operator]
        limited = CapacityLimit(routing, experts, context=length)(decision, sequences)
        assert as_pairs(limited, sequences) == kept_by_loops(decision, sequences, limit, slots)
        torch.testing.assert_close(limited.weight_RK, decision.weight_RK * limited.mask())
        bound += as_pairs(limited, sequences) != as_pairs(decision, sequences)
    assert bound > 30


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("priority", Priority)
def test_no_expert_takes_more_than_its_slots_and_no_lower_rank_goes_first(priority: Priority, group: Group) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        routing = Routing(num_experts=4, k=3, capacity=Capacity(0.5, priority, group))
        decision = random_picks(rng, 2, 8, 4, 3)
        limit = CapacityLimit(routing, 4, context=8)
        slots = limit.slots(8 if group is Group.SEQUENCE else 16)
        kept, wanted = as_pairs(limit(decision, 2), 2), as_pairs(decision, 2)
        expert = {pair: decision.expert_RK[pair[0] * 8 + pair[1], pair[2]].item() for pair in wanted}
        for e in range(4):
            for b in (0, 1):
                groups = (b,) if group is Group.SEQUENCE else (0, 1)
                here = [pair for pair in wanted if expert[pair] == e and pair[0] in groups]
                assert sum(pair in kept for pair in here) == min(slots, len(here))
                dropped = [rank for *place, rank in here if (*place, rank) not in kept]
                if priority is not Priority.TOKEN_MAJOR and dropped:
                    assert max((rank for *place, rank in here if (*place, rank) in kept), default=0) <= min(dropped)


@pytest.mark.parametrize(
    ("factor", "k", "tokens", "experts", "minimum", "slots"),
    [
        (1.0, 1, 16, 4, 1, 4),
        (1.25, 1, 16, 4, 1, 5),
        (1.0, 2, 16, 4, 1, 8),
        (1.0, 1, 17, 4, 1, 5),
        (0.1, 1, 16, 4, 1, 1),
        (0.1, 1, 16, 4, 4, 4),
        (1.1, 1, 40, 4, 1, 11),
        (1.1, 1, 100, 10, 1, 11),  # 11.000000000000002 in floating point
        (1.1, 3, 1000, 3, 1, 1100),
    ],
)
def test_slots_are_the_fair_share_times_the_factor(
    factor: float, k: int, tokens: int, experts: int, minimum: int, slots: int
) -> None:
    routing = Routing(k=k, num_experts=experts, capacity=Capacity(factor, minimum=minimum))
    assert CapacityLimit(routing, experts, context=tokens).slots(tokens) == slots


def test_slots_of_a_threshold_are_xmoe_s() -> None:
    """C = max(ceil(tokens / N * factor), 4)."""
    routing = Routing(selection=Selection.THRESHOLD, num_experts=64, capacity=Capacity(8.0, minimum=4))
    limit = CapacityLimit(routing, 64, context=1024)
    assert [limit.slots(tokens) for tokens in (1024, 100, 8)] == [128, 13, 4]


def test_granular_experts_have_their_share_of_all_picks() -> None:
    routing = Routing(num_experts=4, k=1, granularity=3, capacity=Capacity(1.0))
    assert CapacityLimit(routing, 12, context=24).slots(24) == 6  # 24 tokens * 3 picks / 12 experts


@pytest.mark.parametrize("priority", Priority)
def test_a_layer_under_a_capacity_equals_loops_over_the_kept_pairs(priority: Priority) -> None:
    routing = Routing(k=2, capacity=Capacity(0.6, priority))
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass(detail=True)
    y_BTD = layer(x_BTD, forward_pass)
    decided = oracle.decisions(layer, routing, x_BTD, forward_pass.tokens_BT, None)
    p = [[oracle.probabilities(oracle.logits(layer, routing, x_TD, t).tolist()) for t in range(10)] for x_TD in x_BTD]
    experts = [[e for e, _ in picked] for sequence in decided for picked in sequence]
    probability = [[p[r // 10][r % 10][e] for e in chosen] for r, chosen in enumerate(experts)]
    probability_RK = torch.tensor(probability, dtype=torch.float64)
    decision = RoutingDecision(torch.tensor(experts), torch.empty(0), None, probability_RK)
    kept = kept_by_loops(decision, 3, routing.capacity, slots=3)
    limited = [
        [[pair for rank, pair in enumerate(picked) if (b, t, rank) in kept] for t, picked in enumerate(sequence)]
        for b, sequence in enumerate(decided)
    ]
    torch.testing.assert_close(y_BTD, oracle.outputs(layer, x_BTD, limited))
    stats = forward_pass.stats[0]
    assert stats.wanted == 60 and stats.executed == stats.kept_E.sum() == len(kept) < 60
    assert stats.kept_E.max() <= 3 * 3
    lost = [(b, t) for b in range(3) for t in range(10) if not limited[b][t]]
    assert lost and all((y_BTD[b, t] == 0).all() for b, t in lost)  # its residual is all that is left


@pytest.mark.parametrize("selection", PICKING)
@pytest.mark.parametrize("group", Group)
def test_a_wide_capacity_changes_nothing(group: Group, selection: Selection) -> None:
    wide = Capacity(50.0, Priority.RANK_PROBABILITY, group)
    outputs = [
        layers_of(Routing(selection=selection, k=2, capacity=capacity))[0](states(3, 10, 8), a_pass())
        for capacity in (Capacity(), wide)
    ]
    assert torch.equal(*outputs)


def test_a_shorter_input_is_treated_as_the_beginning_of_a_longer_one() -> None:
    routing = Routing(k=2, capacity=Capacity(0.6, Priority.TOKEN_MAJOR))
    layer, x_BTD = layers_of(routing)[0], states(3, 10, 8)
    whole = layer(x_BTD, a_pass())
    for t in (1, 3, 7):
        torch.testing.assert_close(layer(x_BTD[:, :t], a_pass(3, t)), whole[:, :t], rtol=1e-12, atol=1e-13)
