"""What can be done to the routes of one layer: functions from what was decided to what is decided instead.

An intervention is an action on hits: the picks, of at most one expert of each decision, that something is done to. Its
null is the same action on random hits of equal load.

remove          hits: picks of the expert; they are gone. Null: as many decisions lose a random pick each
reroute         the same, and the next best expert takes the place of what is gone. Null: likewise
swap            hits: picks of either expert; the two change places. Null: as many decisions, in each of them a random
                pick and a random expert
lose_best       hits: each decision's largest weight; they are gone. Null: each decision loses a random pick
one_expert      all picks go to the expert. Null: to an expert that is drawn for each decision
random_routes   experts are put in a random order for each decision; there is no null

Gate weights. What is gone has weight zero and the others keep theirs, whatever the normalisation. Picks that go to
another expert take their weight along (of two that meet at one expert the weights add up). Only `reroute` makes weights
anew, from the router's own scores for the experts that are picked then: with softmax_then_pick the next best gets its
own probability and the others keep theirs; pick_then_softmax and double_softmax are normalised over the new picks;
sigmoid is each score's own; renormalise=true divides by the new sum.

The next best is the expert of the highest score that the token does not have: for a threshold the one that it would
have stopped before, for experts that choose their tokens one that did not choose this token, and may have more than it
would take. A capacity limits what comes of all this, as it limits what the router decides.

Shape suffixes: R decisions, K candidates, E experts, A decisions that are hit.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from moe_study.analysis.specialisation.knockout import Kind, RouteChange
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.model.moe.routing.intervention import Decided, Intervention, dense_weights

Hits = Callable[[Decided], Tensor]  # -> (R, K), bool
Action = Callable[[Decided, Tensor], RoutingDecision]


# Hits -----------------------------------------------------------------------------------------------------------


def picks_of(*experts: int) -> Hits:
    """All picks of these experts."""

    def hits(decided: Decided) -> Tensor:
        of_them_RK = torch.isin(decided.decision.expert_RK, decided.decision.expert_RK.new_tensor(experts))
        return decided.decision.mask() & of_them_RK

    return hits


def best_picks(decided: Decided) -> Tensor:
    """The picks of each decision's expert of the largest weight; of equals the first candidate."""
    mask_RK, expert_RK = decided.decision.mask(), decided.decision.expert_RK
    weight_RK = dense_weights(decided.decision, decided.experts).gather(1, expert_RK).masked_fill(~mask_RK, -math.inf)
    return mask_RK & (expert_RK == expert_RK.gather(1, weight_RK.argmax(1, keepdim=True)))


def random_picks(like: Hits, generator: torch.Generator) -> Hits:
    """A random pick in each of as many decisions as `like` hits; every pick is as likely as any other."""

    def hits(decided: Decided) -> Tensor:
        mask_RK, expert_RK = decided.decision.mask(), decided.decision.expert_RK
        key_RK = torch.rand(mask_RK.shape, generator=generator).to(mask_RK.device).masked_fill(~mask_RK, -1)
        key_R, first_R = key_RK.max(1)
        hit_R = torch.zeros_like(mask_RK[:, 0])
        hit_R[key_R.topk(int(like(decided).any(1).sum())).indices] = True
        return mask_RK & hit_R.unsqueeze(1) & (expert_RK == expert_RK.gather(1, first_R.unsqueeze(1)))

    return hits


# Actions --------------------------------------------------------------------------------------------------------


def remove(decided: Decided, hit_RK: Tensor) -> RoutingDecision:
    """Without the hits."""
    keep_RK = decided.decision.mask() & ~hit_RK
    return replace(decided.decision, keep_RK=keep_RK, weight_RK=decided.decision.weight_RK * keep_RK)


def reroute(decided: Decided, hit_RK: Tensor) -> RoutingDecision:
    """Each hit's place is taken by the next best expert, if there is one; candidates stay in order, best first."""
    decision = decided.decision
    assert decided.scores_RE is not None and decided.decide is not None  # plan.can_reroute
    (row_A,) = hit_RK.any(1).nonzero(as_tuple=True)
    scores_AE = decided.scores_RE[row_A]
    had_AE, hit_AE = (
        _by_expert(mask_RK[row_A], decision.expert_RK[row_A], scores_AE) for mask_RK in (decision.mask(), hit_RK)
    )
    next_A1 = scores_AE.masked_fill(had_AE, -math.inf).argmax(1, keepdim=True)
    picked_AE = (had_AE & ~hit_AE).scatter(1, next_A1, True) & ~hit_AE  # where none is left, next_A1 is any that it had
    best_first_AK = scores_AE.masked_fill(~picked_AE, -math.inf).sort(dim=1, descending=True, stable=True).indices
    best_first_AK = best_first_AK[:, : decision.expert_RK.shape[1]]
    expert_RK = decision.expert_RK.index_copy(0, row_A, best_first_AK)
    keep_RK = decision.mask().index_copy(0, row_A, picked_AE.gather(1, best_first_AK))
    return decided.decide(expert_RK, None if decision.keep_RK is None and bool(keep_RK.all()) else keep_RK)


def _by_expert(mask_AK: Tensor, expert_AK: Tensor, like_AE: Tensor) -> Tensor:
    """Candidates as a mask over experts (A, E)."""
    return torch.zeros_like(like_AE, dtype=torch.long).scatter_add(1, expert_AK, mask_AK.long()) > 0


def send(decided: Decided, to_RE: Tensor) -> RoutingDecision:
    """Every decision's picks of expert e go to to_RE[:, e], with their weights and priorities."""
    return replace(decided.decision, expert_RK=to_RE.gather(1, decided.decision.expert_RK))


def _own_places(decided: Decided) -> Tensor:
    expert_E = torch.arange(decided.experts, device=decided.decision.expert_RK.device)
    return expert_E.repeat(len(decided.decision.expert_RK), 1)


def exchange_with_random(generator: torch.Generator) -> Action:
    """The expert that is hit and a random other one change places, decision by decision."""

    def action(decided: Decided, hit_RK: Tensor) -> RoutingDecision:
        expert_RK, to_RE = decided.decision.expert_RK, _own_places(decided)
        hit_R1 = hit_RK.any(1, keepdim=True)
        first_R1 = expert_RK.gather(1, hit_RK.long().argmax(1, keepdim=True))
        step_R1 = torch.randint(1, decided.experts, first_R1.shape, generator=generator).to(first_R1.device)
        second_R1 = torch.where(hit_R1, (first_R1 + step_R1) % decided.experts, first_R1)
        return send(decided, to_RE.scatter(1, first_R1, second_R1).scatter(1, second_R1, first_R1))

    return action


# Interventions ----------------------------------------------------------------------------------------------------


def intervention(change: RouteChange, layer: int, draw: int = 0) -> Intervention:
    """What `change` does to a layer that decides; `draw` numbers its random routes."""
    first, second = change.expert, change.other
    actions: dict[Kind, Callable[[], Intervention]] = {
        Kind.REMOVE: lambda: without(first),
        Kind.REROUTE: lambda: _on(picks_of(first), reroute),
        Kind.SWAP: lambda: _swapped(first, second),
        Kind.LOSE_BEST: lambda: _on(best_picks, remove),
        Kind.ONE_EXPERT: lambda: _all_to(first),
        Kind.RANDOM_ROUTES: lambda: _random_routes(_generator(change, layer, draw)),
    }
    return actions[change.kind]()


def without(*experts: int) -> Intervention:
    """All picks of these experts are gone; others keep their weights."""
    return _on(picks_of(*experts), remove)


def null_of(change: RouteChange, layer: int, draw: int) -> Intervention:
    """The same done to random experts of equal load; ValueError for random routes, which have no null."""
    generator = _generator(change, layer, draw)
    picked: dict[Kind, tuple[Hits, Action]] = {
        Kind.REMOVE: (picks_of(change.expert), remove),
        Kind.REROUTE: (picks_of(change.expert), reroute),
        Kind.SWAP: (picks_of(change.expert, change.other), exchange_with_random(generator)),
        Kind.LOSE_BEST: (best_picks, remove),
    }
    if change.kind in picked:
        like, action = picked[change.kind]
        return _on(random_picks(like, generator), action)
    if change.kind is Kind.ONE_EXPERT:
        return _all_to_random(generator)
    raise ValueError(f"{change.kind} has no null")


def _generator(change: RouteChange, layer: int, draw: int) -> torch.Generator:
    """A stream of its own for every layer and draw, whatever else is drawn."""
    digest = hashlib.sha256(repr((layer, str(change.kind), change.expert, change.other, draw)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _on(hits: Hits, action: Action) -> Intervention:
    return lambda decided: action(decided, hits(decided))


def _swapped(first: int, second: int) -> Intervention:
    def swapped(decided: Decided) -> RoutingDecision:
        to_RE = _own_places(decided)
        to_RE[:, first], to_RE[:, second] = second, first
        return send(decided, to_RE)

    return swapped


def _all_to(expert: int) -> Intervention:
    return lambda decided: send(decided, torch.full_like(_own_places(decided), expert))


def _all_to_random(generator: torch.Generator) -> Intervention:
    def changed(decided: Decided) -> RoutingDecision:
        to_RE = _own_places(decided)
        to_R1 = torch.randint(decided.experts, (len(to_RE), 1), generator=generator).to(to_RE.device)
        return send(decided, to_R1.expand_as(to_RE))

    return changed


def _random_routes(generator: torch.Generator) -> Intervention:
    def changed(decided: Decided) -> RoutingDecision:
        places_RE = _own_places(decided)
        order_RE = torch.rand(places_RE.shape, generator=generator).argsort(1).to(places_RE.device)
        return send(decided, order_RE)

    return changed
