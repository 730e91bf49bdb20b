"""Damage by domain against loops; what is planted is found, and nothing else."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation.knockout import (
    Damage,
    DomainChange,
    Kind,
    KnockedRun,
    RouteChange,
    domain_changes,
)

EXPERTS, DRAWS = 4, 3
Array = np.ndarray


def a_run(
    random: np.random.Generator,
    languages: int = 3,
    documents: int = 60,
    *,
    needed: Sequence[tuple[int, int]] = (),
    tender: float = 0.0,
    taste: float = 0.02,
) -> KnockedRun:
    """Removals of one layer. Every document has a taste of its own for each expert; `needed` experts cost their domain
    0.1 nats per token more; domain 0 loses `tender` times as much as others whatever is removed, at random or not."""
    tokens_D = random.integers(30, 200, documents).astype(float)
    code_D = np.arange(documents) % languages
    more_D = 1 + tender * (code_D == 0)
    damages = []
    for expert in range(EXPERTS):
        change_D = (
            0.05
            + taste * random.standard_normal(documents)
            + 0.1 * np.isin(code_D, [d for e, d in needed if e == expert])
        )
        null_ND = 0.05 + 0.005 * random.standard_normal((DRAWS, documents))
        moved_D = np.round(tokens_D / EXPERTS)
        damages.append(
            Damage(
                RouteChange(1, Kind.REMOVE, expert), change_D * more_D * tokens_D, moved_D, null_ND * more_D * tokens_D
            )
        )
    names = tuple(f"language {n}" for n in range(languages))
    return KnockedRun(tokens_D, {1: tokens_D.copy()}, {"language": (code_D, names)}, tuple(damages))


def rows_of(run: KnockedRun, label: str = "language") -> dict[tuple[int, str], DomainChange]:
    return {(row.expert, row.domain): row for row in domain_changes(run) if row.label == label}


def test_changes_are_sums_over_documents_by_tokens() -> None:
    run = a_run(np.random.default_rng(0))
    codes_D, names = run.labels["language"]
    found, overall = rows_of(run), rows_of(run, "")
    for place, damage in enumerate(run.damages):
        change = {}
        for code, name in enumerate(names):
            member = [d for d in range(60) if codes_D[d] == code]
            tokens = sum(run.tokens_D[d] for d in member)
            change[name] = sum(damage.nats_D[d] for d in member) / tokens
            draws = [sum(draw_D[d] for d in member) / tokens for draw_D in damage.null_ND]
            row = found[place, name]
            assert row.change == pytest.approx(change[name], abs=1e-12)
            assert row.null_mean == pytest.approx(np.mean(draws), abs=1e-12)
            assert row.excess == pytest.approx(change[name] - np.mean(draws), abs=1e-12)
            half = stats.t.ppf(0.975, 2) * np.std(draws, ddof=1) * np.sqrt(1 + 1 / 3)
            assert row.null_high - row.null_mean == pytest.approx(half, abs=1e-12)
            assert (row.tokens, row.documents) == (tokens, 20)
            assert row.share == pytest.approx(sum(damage.moved_D[d] for d in member) / tokens)
        for name in names:
            others = {other: value for other, value in change.items() if other != name}
            worst = max(others, key=lambda other: others[other])
            assert found[place, name].off_target_domain == worst
            assert found[place, name].off_target == pytest.approx(others[worst], abs=1e-12)
        assert overall[place, ""].change == pytest.approx(damage.nats_D.sum() / run.tokens_D.sum(), abs=1e-12)
        assert np.isnan(overall[place, ""].p) and not overall[place, ""].needed


def test_an_interval_is_about_that_of_documents_as_independent_values() -> None:
    """Of documents of one length the ratio is a mean, and its interval Student's."""
    run = a_run(np.random.default_rng(1))
    tokens_D = np.full(60, 100.0)
    even = KnockedRun(tokens_D, {1: tokens_D}, run.labels, run.damages)
    codes_D = run.labels["language"][0]
    for (expert, name), row in rows_of(even).items():
        values = run.damages[expert].nats_D[codes_D == int(name[-1])] / 100
        low, high = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
        assert (row.low, row.high) == (
            pytest.approx(low, abs=0.12 * (high - low)),
            pytest.approx(high, abs=0.12 * (high - low)),
        )


def test_the_planted_expert_is_needed_for_its_domain_alone() -> None:
    run = a_run(np.random.default_rng(2), needed=[(2, 1)])
    assert {key for key, row in rows_of(run).items() if row.needed} == {(2, "language 1")}


def test_an_expert_that_two_domains_need_is_needed_for_neither_alone() -> None:
    run = a_run(np.random.default_rng(3), needed=[(2, 0), (2, 1)])
    assert not any(row.needed for row in rows_of(run).values())


def test_a_domain_that_loses_more_whatever_is_removed_needs_no_expert_for_that() -> None:
    run = a_run(np.random.default_rng(4), tender=3.0)
    found = rows_of(run)
    assert all(found[expert, "language 0"].change > 3 * found[expert, "language 1"].change for expert in range(EXPERTS))
    assert not any(row.needed for row in found.values())


def test_what_changes_nothing_has_no_interval_and_no_claim() -> None:
    run = a_run(np.random.default_rng(5))
    zeros_D, zeros_ND = np.zeros(60), np.zeros((DRAWS, 60))
    damages = (Damage(RouteChange(1, Kind.REMOVE, 0), zeros_D, zeros_D, zeros_ND), *run.damages[1:])
    found = rows_of(KnockedRun(run.tokens_D, run.assigned, run.labels, damages))
    row = found[0, "language 0"]
    assert (row.change, row.low, row.high, row.null_low, row.null_high, row.share) == (0, 0, 0, 0, 0, 0)
    assert row.p == 1 and not row.needed


def test_documents_without_a_label_or_a_loss_and_domains_of_one_document() -> None:
    run = a_run(np.random.default_rng(6), needed=[(1, 0)])
    codes_D = run.labels["language"][0].copy()
    codes_D[codes_D == 2] = -1
    codes_D[2] = 2  # the only one of its domain
    tokens_D = run.tokens_D.copy()
    tokens_D[0] = 0
    labels = {"language": (codes_D, run.labels["language"][1])}
    found = rows_of(KnockedRun(tokens_D, run.assigned, labels, run.damages))
    assert found[1, "language 0"].documents == 19
    alone = found[1, "language 2"]
    assert alone.documents == 1 and np.isnan([alone.low, alone.high, alone.p]).all()
    assert {key for key, row in found.items() if row.needed} == {(1, "language 0")}  # against what can be compared


def test_a_label_with_one_domain_has_nothing_off_target() -> None:
    row = rows_of(a_run(np.random.default_rng(7), languages=1))[0, "language 0"]
    assert row.off_target_domain == "" and np.isnan(row.off_target) and np.isnan(row.p) and not row.needed


def test_random_routes_have_no_null() -> None:
    run = a_run(np.random.default_rng(8))
    damage = Damage(
        RouteChange(1, Kind.RANDOM_ROUTES), run.damages[0].nats_D, run.damages[0].moved_D, np.zeros((0, 60))
    )
    row = rows_of(KnockedRun(run.tokens_D, run.assigned, run.labels, (damage,)))[-1, "language 0"]
    assert np.isfinite([row.change, row.low, row.high]).all()
    assert np.isnan([row.null_mean, row.null_low, row.excess, row.excess_low, row.p, row.share]).all()


@pytest.mark.simulation
def test_tastes_of_documents_are_seldom_taken_for_need_and_intervals_cover() -> None:
    """Families of 12 pairs at 5%: every document has a taste of its own, no domain needs anything; 2,000 cases."""
    random, wrong, covered, cases = np.random.default_rng(9), 0, 0, 2000
    for _ in range(cases):
        rows = rows_of(a_run(random, documents=36))
        wrong += any(row.needed for row in rows.values())
        covered += sum(row.low <= 0.05 <= row.high for row in rows.values())
    assert wrong / cases < 0.06
    assert 0.93 < covered / (cases * 12) < 0.97
