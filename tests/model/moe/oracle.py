"""A mixture layer as loops over sequences, tokens and experts, one vector at a time.

Decisions are worked out token by token from the definitions in `moe_study.design.routing`. It takes the layer's
own parameters, so that gradients of both can be compared; nothing else of the package's model is used.

Shape suffixes: B sequences, T positions, D width, F hidden units of an expert.
"""

import math

import torch
from torch import Tensor, nn

from moe_study.design.routing import Context, Gate, RouterKind, Routing, Selection, Unit
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.router import CosineRouter, HashRouter, ScoringRouter

Weighted = list[tuple[int, Tensor]]  # (expert, weight) of one token
Decisions = list[list[Weighted]]  # by sequence and position


def outputs(layer: MixtureLayer, x_BTD: Tensor, decisions: Decisions) -> Tensor:
    """What the layer gives for these decisions."""
    rows = []
    for sequence, decided in zip(x_BTD, decisions, strict=True):
        row = []
        for x_D, picked in zip(sequence, decided, strict=True):
            y_D = torch.zeros_like(x_D)
            for expert, weight in picked:
                y_D = y_D + weight * expert_output(layer, expert, x_D)
            if layer.shared is not None:
                up, down = layer.shared.up, layer.shared.down
                assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
                y_D = y_D + network(x_D, up.weight.T, up.bias, down.weight.T, down.bias)
            row.append(y_D)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def expert_output(layer: MixtureLayer, expert: int, x_D: Tensor) -> Tensor:
    experts = layer.experts
    up_bias = None if experts.up_bias_EF is None else experts.up_bias_EF[expert]
    down_bias = None if experts.down_bias_ED is None else experts.down_bias_ED[expert]
    return network(x_D, experts.up_EDF[expert], up_bias, experts.down_EFD[expert], down_bias)


def network(x_D: Tensor, up_DF: Tensor, up_bias: Tensor | None, down_FD: Tensor, down_bias: Tensor | None) -> Tensor:
    h_F = x_D @ up_DF if up_bias is None else x_D @ up_DF + up_bias
    active_F = gelu(h_F)
    return active_F @ down_FD if down_bias is None else active_F @ down_FD + down_bias


def gelu(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))


def decisions(
    layer: MixtureLayer, routing: Routing, x_BTD: Tensor, tokens_BT: Tensor, label_B: Tensor | None
) -> Decisions:
    """Experts and weights of every token, decided by this layer's router."""
    assert layer.decider is not None
    decided: Decisions = []
    for b, x_TD in enumerate(x_BTD):
        sequence = []
        for t in range(len(x_TD)):
            if routing.router is RouterKind.HASH:
                assert isinstance(layer.decider.router, HashRouter)
                experts = layer.decider.router.table_VK[int(tokens_BT[b, t])].tolist()
                picked = [(e, torch.tensor(1 / len(experts)).to(x_TD)) for e in experts]
            elif routing.router is RouterKind.LABEL:
                assert label_B is not None
                k = routing.k * routing.granularity
                experts = [(int(label_B[b]) * k + i) % layer.num_experts for i in range(k)]
                picked = [(e, torch.tensor(1 / k).to(x_TD)) for e in experts]
            else:
                scores = logits(layer, routing, x_TD, t)
                experts = pick(scores.tolist(), routing)
                picked = list(zip(experts, gate(scores, experts, routing), strict=True))
            sequence.append(picked)
        decided.append(sequence)
    return decided


def logits(layer: MixtureLayer, routing: Routing, x_TD: Tensor, t: int) -> Tensor:
    """The router's scores for the decision that position t of one sequence follows."""
    assert layer.decider is not None and isinstance(layer.decider.router, ScoringRouter)
    router = layer.decider.router
    state_D = reading(x_TD, t, routing)
    if state_D is None:
        assert router.prior_E is not None
        return router.prior_E
    if isinstance(router, CosineRouter):
        return cosines(router, state_D)
    *hidden, last = list(router.weights)
    for weight in hidden:
        state_D = gelu(weight @ state_D)
    return last @ state_D


def cosines(router: CosineRouter, state_D: Tensor) -> Tensor:
    """For each expert the cosine between the projected state and its embedding, over the temperature."""
    projection_PD, embedding_EP = router.weights
    projected_P = projection_PD @ state_D
    scores = []
    for expert_P in embedding_EP:
        lengths = (projected_P * projected_P).sum().sqrt() * (expert_P * expert_P).sum().sqrt()
        scores.append((projected_P * expert_P).sum() / lengths / router.log_temperature.exp())
    return torch.stack(scores)


def reading(x_TD: Tensor, t: int, routing: Routing) -> Tensor | None:
    """What the decision at position t reads; None: nothing but the router's learned prior."""
    length, context = len(x_TD), routing.context
    if context is Context.OWN:
        return x_TD[t]
    if context is Context.RUNNING_MEAN:
        return mean(x_TD, 0, t + 1)
    if context is Context.PREFIX:
        prefix = routing.prefix_length
        assert prefix is not None
        return None if t < prefix else mean(x_TD, 0, prefix)
    if routing.unit is Unit.SEQUENCE:
        start, end, size = 0, length, length
    else:
        assert routing.segment_length is not None
        size = routing.segment_length
        start = t - t % size
        end = min(start + size, length)
    if context is Context.FIRST_TOKEN:
        return x_TD[start]
    if context is Context.UNIT_MEAN:
        return mean(x_TD, start, end)
    assert context is Context.PREVIOUS_SEGMENT
    if start > 0:
        return mean(x_TD, start - size, start)
    return None if routing.first_segment == "prior" else mean(x_TD, start, end).detach()


def mean(x_TD: Tensor, start: int, end: int) -> Tensor:
    total_D = torch.zeros_like(x_TD[0])
    for t in range(start, end):
        total_D = total_D + x_TD[t]
    return total_D / (end - start)


def ranking(scores: list[float]) -> list[int]:
    """Experts from the best to the worst; of equals, the one with the lower index first."""
    return sorted(range(len(scores)), key=lambda e: (-scores[e], e))


def probabilities(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def pick(scores: list[float], routing: Routing) -> list[int]:
    """Experts of one decision, best first."""
    if routing.selection is Selection.ALL:
        return ranking(scores)
    if routing.selection is Selection.THRESHOLD:
        return threshold(probabilities(scores), routing.threshold)
    if routing.selection is Selection.POSITIVE:
        return [expert for expert in ranking(scores) if scores[expert] > 0]
    assert routing.selection is Selection.TOP_K
    return ranking(scores)[: routing.k * routing.granularity]


def threshold(p: list[float], t: float) -> list[int]:
    """XMoE: rank r is taken if and only if the probabilities ranked before it sum to less than t; rank 1 always."""
    taken, mass = [], 0.0
    for rank, expert in enumerate(ranking(p)):
        if rank > 0 and not mass < t:
            break
        taken.append(expert)
        mass += p[expert]
    return taken


def gate(scores: Tensor, experts: list[int], routing: Routing) -> list[Tensor]:
    """Weights of one decision's experts."""
    if routing.gate is Gate.SIGMOID:
        weights = [1 / (1 + torch.exp(-scores[e])) for e in experts]
    elif routing.gate is Gate.RELU:
        weights = [scores[e] if scores[e] > 0 else 0 * scores[e] for e in experts]
    elif routing.gate is Gate.PICK_THEN_SOFTMAX:
        weights = softmax([scores[e] for e in experts])
    else:
        p = softmax(list(scores))
        weights = [p[e] for e in experts]
        if routing.gate is Gate.DOUBLE_SOFTMAX:
            weights = softmax(weights)
    total = sum(weights, torch.zeros_like(scores[0]))
    if routing.renormalise and total > 0:
        weights = [weight / total for weight in weights]
    return weights


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    total = sum(powers, torch.zeros_like(powers[0]))
    return [power / total for power in powers]
