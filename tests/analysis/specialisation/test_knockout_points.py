"""Knock-outs over seeds, and the sentences that say what they carry."""

from dataclasses import replace

import numpy as np
import pytest

from moe_study.analysis.specialisation.knockout import Damage, Kind, KnockedRun, RouteChange
from moe_study.analysis.specialisation.knockout_points import (
    RunOfPoint,
    concentration,
    needed_pairs,
    points_of,
    run_of_point,
)
from moe_study.analysis.specialisation.knockout_report import layers_frame, runs_frame
from moe_study.analysis.specialisation.knockout_sentences import knockout_sentences
from moe_study.analysis.statistics import holm
from moe_study.errors import DataError
from tests.analysis.specialisation.test_knockout import DRAWS, EXPERTS, a_run


def test_the_concentration_is_the_mean_over_experts_of_the_largest_change_less_the_rest() -> None:
    run = a_run(np.random.default_rng(0), needed=[(0, 1), (3, 2)])
    codes_D, names = run.labels["language"]
    largest = []
    for damage in run.damages:
        beyond_D = damage.nats_D - damage.null_ND.mean(0)
        differences = []
        for code in range(len(names)):
            own, rest = codes_D == code, codes_D != code
            differences.append(
                beyond_D[own].sum() / run.tokens_D[own].sum() - beyond_D[rest].sum() / run.tokens_D[rest].sum()
            )
        largest.append(max(differences))
    found = concentration(run, 1, "language", permutations=200)
    assert found.value == pytest.approx(np.mean(largest), abs=1e-12)
    assert len(found.null_R) == 200 and found.null_R.max() < found.value
    assert found.excess == pytest.approx(found.value - found.null_R.mean())


def test_topics_are_dealt_out_within_languages_where_they_can_move() -> None:
    """Languages that differ do not widen the null of topics; what follows from another label is not kept within it."""
    run = a_run(np.random.default_rng(1), needed=[(e, e % 3) for e in range(EXPERTS)])
    topic_D = np.arange(60) // 3 % 4  # crossed with the languages
    with_topics = replace(run, labels={**run.labels, "topic": (topic_D, ("a", "b", "c", "d"))})
    alone = replace(run, labels={"topic": with_topics.labels["topic"]})
    spread = {
        name: concentration(each, 1, "topic").null_R.std() for name, each in (("within", with_topics), ("alone", alone))
    }
    assert spread["within"] < 0.8 * spread["alone"]
    family_D = run.labels["language"][0] // 2  # languages 0 and 1 are one family
    nested = replace(run, labels={**run.labels, "family": (family_D, ("one", "other"))})
    assert concentration(nested, 1, "family").null_R.std() > 0


def runs_of(point: str, seeds: int, needed: bool) -> list[RunOfPoint]:
    found = []
    for seed in range(seeds):
        pairs = [(e, (e + seed) % 3) for e in range(EXPERTS)] if needed else []  # other experts in every seed
        run = a_run(np.random.default_rng(100 + seed), needed=pairs)
        found.append(run_of_point(point, seed, leaks=needed, run=run, permutations=200))
    return found


@pytest.fixture(scope="module")
def points():
    return points_of([*runs_of("planted", 4, True), *runs_of("nothing", 4, False)])


def test_what_every_seed_shows_is_shown_whichever_experts_it_is_in(points) -> None:
    planted, nothing = points
    (row,), (none,) = planted.layers, nothing.layers
    assert row.shown and not none.shown
    assert row.pairs.mean == 4 and none.pairs.mean == 0
    assert row.excess.low > 0.05 and none.excess.low < 0 < none.excess.high
    expected = holm([max(each.p_seeds, each.p_documents) for each in (row, none)])
    assert [row.p_adjusted, none.p_adjusted] == pytest.approx(expected)
    draws = np.mean([run.concentrations[1, "language"].null_R for run in planted.runs], 0)
    reached = (draws >= np.mean([run.concentrations[1, "language"].value for run in planted.runs])).sum()
    assert row.p_documents == (1 + reached) / 201


def test_sentences_name_the_experts_of_each_seed_and_average_the_layer(points) -> None:
    lines = list(knockout_sentences(points))
    place = lines.index("Which expert is needed for which language?")
    assert lines[place + 1].startswith("  planted †: that one language loses more is shown in layer 1 (0.0")
    assert lines[place + 1].endswith("4.0 pairs needed per seed) (4 seeds)")
    assert lines[place + 2].startswith("    seed 0: layer 1: expert ") and "for language " in lines[place + 2]
    assert lines[place + 6].startswith("  nothing: that one language loses more is not shown in layer 1 (")
    assert lines[place + 7] == "    seeds 0, 1, 2, 3: no expert is needed for one language alone"
    broken = lines[lines.index("What breaks when routes are changed?") + 2]
    assert broken.startswith("  nothing, layer 1: an expert removed 0.049 [0.046, 0.052] / 0.050")
    assert lines[-1].startswith("†")


def test_one_seed_is_described_and_not_tested() -> None:
    (point,) = points_of(runs_of("planted", 1, True))
    assert not point.tested and not point.layers[0].shown
    lines = list(knockout_sentences([point]))
    (answer,) = [line for line in lines if "not tested" in line]
    assert answer.startswith("  planted †: one language loses more by 0.0")
    assert not any(" is shown" in line or "is not shown" in line for line in lines)
    assert layers_frame([point])["shown"].tolist() == [None]


def test_tables_hold_every_run_and_every_layer(points) -> None:
    runs = runs_frame(points)
    assert len(runs) == 2 * 4 * EXPERTS * (1 + 3)
    assert {"point", "seed", "change", "null_mean", "off_target", "needed"} <= set(runs.columns)
    layers = layers_frame(points)
    assert layers["point"].tolist() == ["planted", "nothing"] and layers["shown"].tolist() == [True, False]


def test_pairs_are_those_of_one_layer_and_label(points) -> None:
    run = points[0].runs[0]
    assert len(needed_pairs(run, "language", 1)) == 4 and needed_pairs(run, "language", 0) == []
    assert needed_pairs(run, "topic", 1) == []


def test_seeds_that_were_not_knocked_out_alike_are_refused() -> None:
    first, second = runs_of("planted", 2, True)
    with pytest.raises(DataError, match="not knocked out in the same layers"):
        points_of([first, replace(second, concentrations={})])


def test_kinds_are_averaged_over_experts_and_all_layers_at_once_stand_apart() -> None:
    run = a_run(np.random.default_rng(3))
    both = Damage(
        RouteChange(-1, Kind.LOSE_BEST), 0.4 * run.tokens_D, run.tokens_D, np.full((DRAWS, 60), 0.2) * run.tokens_D
    )
    knocked = KnockedRun(run.tokens_D, run.assigned, run.labels, (*run.damages, both))
    (point,) = points_of([run_of_point("p", seed, False, knocked, 19) for seed in (3, 0)])
    assert [run.seed for run in point.runs] == [0, 3]
    kinds = {(row.layer, row.kind): row for row in point.kinds}
    means = [damage.nats_D.sum() / run.tokens_D.sum() for damage in run.damages]
    assert kinds[1, Kind.REMOVE].change.mean == pytest.approx(np.mean(means))
    assert kinds[-1, Kind.LOSE_BEST].change.mean == pytest.approx(0.4)
    (line,) = [line for line in knockout_sentences([point]) if "all layers" in line]
    assert line == "  p, all layers: each token without its best 0.400 [0.400, 0.400] / 0.200"


@pytest.mark.simulation
def test_tastes_of_documents_are_seldom_taken_for_domains() -> None:
    """4,000 runs in which no domain means anything: the null of documents rejects at its level."""
    random = np.random.default_rng(4)
    p_values = []
    for _ in range(4000):
        found = concentration(a_run(random, documents=36), 1, "language", permutations=99)
        p_values.append((1 + (found.null_R >= found.value - 1e-12).sum()) / 100)
    assert np.mean(np.array(p_values) <= 0.05) < 0.06
