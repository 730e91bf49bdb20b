"""Nulls of changed routes: random picks, as many of every batch, each as likely."""

import pytest
import torch

from moe_study.analysis.specialisation.knockout import Kind, RouteChange
from moe_study.model.moe.routing.gate import RoutingDecision, fixed_decision
from moe_study.model.moe.routing.intervention import Decided
from moe_study.posthoc.knockout.interventions import intervention, null_of, picks_of, random_picks


def a_decision(seed: int = 0) -> Decided:
    """400 tokens with one to four of five experts."""
    generator = torch.Generator().manual_seed(seed)
    scores_RE = torch.randn(400, 5, generator=generator)
    expert_RE = scores_RE.argsort(1, descending=True)
    keep_RE = torch.arange(5) <= torch.randint(4, (400, 1), generator=generator)
    return Decided(RoutingDecision(expert_RE, torch.rand(400, 5) * keep_RE, keep_RE), 5, scores_RE)


def test_random_picks_are_as_many_and_one_of_a_decision_each_as_likely() -> None:
    decided = a_decision()
    like = picks_of(3)
    count = int(like(decided).sum())
    hits_NRK = torch.stack([random_picks(like, torch.Generator().manual_seed(n))(decided) for n in range(400)])
    assert (hits_NRK.sum((1, 2)) == count).all() and (hits_NRK.sum(2) <= 1).all()
    assert not hits_NRK[:, ~decided.decision.mask()].any()
    mask_RK = decided.decision.mask()
    share_RK = hits_NRK.double().mean(0)
    mean_of = {
        picks: float(share_RK[(mask_RK.sum(1) == picks)].sum() / (mask_RK.sum(1) == picks).sum()) for picks in (1, 4)
    }
    assert mean_of[4] > 1.3 * mean_of[1]  # a decision of four picks is hit more often than one of a single pick
    rank_means = [float(share_RK[mask_RK.sum(1) == 4][:, rank].mean()) for rank in range(4)]
    assert max(rank_means) < 1.1 * min(rank_means)  # and each of the four as often


@pytest.mark.parametrize("kind", [Kind.REMOVE, Kind.LOSE_BEST])
def test_a_null_takes_as_many_picks_of_every_batch(kind: Kind) -> None:
    change = RouteChange(0, kind, 3)
    null = null_of(change, 0, 0)
    for seed in range(3):  # the stream goes on from batch to batch
        decided = a_decision(seed)
        left = [int(each(decided).mask().sum()) for each in (intervention(change, 0), null)]
        assert left[0] == left[1] < int(decided.decision.mask().sum())
        assert not torch.equal(intervention(change, 0)(decided).mask(), null(decided).mask())


def test_a_null_of_soft_weights_takes_one_whole_expert_from_each_token() -> None:
    expert_RS = (torch.arange(12) // 3).expand(50, 12)
    decided = Decided(RoutingDecision(expert_RS, torch.rand(50, 12)), 4)
    after = null_of(RouteChange(0, Kind.REMOVE, 1), 0, 0)(decided)
    gone_RS = ~after.mask()
    assert (gone_RS.sum(1) == 3).all() and all(len(set(expert_RS[r][gone_RS[r]].tolist())) == 1 for r in range(50))
    assert len({int(expert_RS[r][gone_RS[r]][0]) for r in range(50)}) == 4


def test_random_routes_have_as_many_picks_of_distinct_experts_with_the_same_weights() -> None:
    decided = a_decision()
    after = intervention(RouteChange(0, Kind.RANDOM_ROUTES), 0, 5)(decided)
    assert torch.equal(after.mask(), decided.decision.mask())
    assert torch.equal(after.weight_RK, decided.decision.weight_RK)
    assert all(len(set(row)) == 5 for row in after.expert_RK.tolist())
    counts_E = torch.bincount(after.expert_RK[:, 0], minlength=5)
    assert counts_E.min() > 50  # 80 each, give or take 8
    again = intervention(RouteChange(0, Kind.RANDOM_ROUTES), 0, 5)(decided)
    assert torch.equal(again.expert_RK, after.expert_RK)
    assert not torch.equal(intervention(RouteChange(0, Kind.RANDOM_ROUTES), 0, 6)(decided).expert_RK, after.expert_RK)


def test_a_null_of_a_swap_exchanges_a_pick_with_a_random_expert_in_as_many_decisions() -> None:
    decided = a_decision()
    before, after = decided.decision, null_of(RouteChange(0, Kind.SWAP, 0, 1), 0, 0)(decided)
    differs_R = (before.expert_RK != after.expert_RK).any(1)
    assert int(differs_R.sum()) == int(picks_of(0, 1)(decided).any(1).sum())
    assert ((before.expert_RK != after.expert_RK).sum(1)[differs_R] == 2).all()  # of five candidates two trade
    assert all(sorted(row) == list(range(5)) for row in after.expert_RK.tolist())


def test_all_to_one_has_a_random_expert_of_each_token_as_its_null() -> None:
    decided = Decided(fixed_decision(torch.zeros(400, 2, dtype=torch.long), torch.float32), 4)
    after = null_of(RouteChange(0, Kind.ONE_EXPERT), 0, 0)(decided)
    assert (after.expert_RK[:, 0] == after.expert_RK[:, 1]).all()
    assert torch.bincount(after.expert_RK[:, 0], minlength=4).min() > 60


def test_random_routes_have_no_null() -> None:
    with pytest.raises(ValueError, match="no null"):
        null_of(RouteChange(0, Kind.RANDOM_ROUTES), 0, 0)
