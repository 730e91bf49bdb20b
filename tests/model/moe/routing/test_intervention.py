"""The seam: nothing changes without an intervention, or with one that gives back what it was shown, to the last bit."""

import dataclasses
from typing import Any

import pytest
import torch

from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.model.gpt import GPT
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.model.moe.routing.intervention import Decided, dense_weights
from tests.design.points import toy
from tests.posthoc.test_trace import POINTS as TRACED

POINTS: dict[str, dict[str, Any]] = TRACED | {
    "shuffled": {"k": 2, "shuffle": True},
    "soft identity": {"selection": "soft", "soft": {"dispatch": "identity", "combine": "identity"}, "num_experts": 12},
    "soft across the batch": {"selection": "soft", "soft": {"form": "across_batch", "group_size": 2}},
    "merge by token": {"selection": "merge"},
}


class Watch:
    """Gives everything back as it was, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[Decided] = []

    def __call__(self, decided: Decided) -> RoutingDecision:
        self.seen.append(decided)
        return decided.decision


def losses(routing: Routing, watches: dict[int, Watch] | None) -> torch.Tensor:
    config = toy(routing)
    model = GPT(config.model, routing, config.vocab_size, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(config.vocab_size, (4, 10), generator=generator)
    with torch.no_grad():
        output = model(
            tokens_BT, tokens_BT.roll(-1, 1), label_B=torch.arange(4) % 2, per_token=True, interventions=watches
        )
    assert output.token_loss_BT is not None
    return output.token_loss_BT


@pytest.mark.parametrize("name", POINTS)
def test_what_is_given_back_as_it_was_changes_nothing_to_the_last_bit(name: str) -> None:
    routing = from_plain(Routing, POINTS[name])
    watches = {layer: Watch() for layer in range(3)}
    assert torch.equal(losses(routing, watches), losses(routing, None))
    decide = {layer for layer, watch in watches.items() if watch.seen}
    if routing.scope == "global":
        assert decide == {0}  # the first one decides, and is shown what all layers will follow
    else:
        assert decide == ({1} if routing.layers == "every_second" else {0, 1, 2})


def test_scores_rank_the_picks_of_a_biased_choice_as_the_choice_did() -> None:
    routing = dataclasses.replace(from_plain(Routing, {"k": 2, "balance": {"bias_rate": 0.1}}))
    config, watch = toy(routing), Watch()
    model = GPT(config.model, routing, config.vocab_size, seed=0).eval()
    model.blocks[1].ffn.decider.balancer.bias_E.copy_(torch.tensor([0.0, 0.3, -0.3, 0.1]))
    model(torch.randint(config.vocab_size, (4, 10)), interventions={1: watch})
    (decided,) = watch.seen
    assert decided.scores_RE is not None
    assert torch.equal(decided.scores_RE.topk(2, 1).indices, decided.decision.expert_RK)


def test_dense_weights_add_up_what_meets_at_one_expert_and_leave_out_what_does_not_count() -> None:
    expert_RK, weight_RK = torch.tensor([[2, 0, 2], [1, 1, 0]]), torch.tensor([[0.5, 0.2, 0.1], [0.3, 0.4, 0.6]])
    keep_RK = torch.tensor([[True, True, True], [True, False, True]])
    expected = torch.tensor([[0.2, 0.0, 0.6, 0.0], [0.6, 0.3, 0.0, 0.0]])
    torch.testing.assert_close(dense_weights(RoutingDecision(expert_RK, weight_RK, keep_RK), 4), expected)
