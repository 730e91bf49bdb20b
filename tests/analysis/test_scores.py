"""Scores side by side: pairs of answers, over seeds, against plain arithmetic and scipy's bootstrap."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moe_study.analysis import report
from moe_study.analysis.frame import load_frame
from moe_study.analysis.page.tables import tables_of
from moe_study.analysis.scores import COLUMNS, bootstrap_interval, score_cells, score_table
from moe_study.analysis.study import study_of
from moe_study.runs.folder import RunFolder
from moe_study.runs.scores import score_identity, write_score
from tests.analysis import planted

ITEMS = 120
POINTS = (planted.DENSE_1X, planted.TOKEN_2, planted.SEQUENCE_2)
RATES = (0.4, 0.6, 0.5)


def answers(rate, seed, items=ITEMS):
    """1 where a question is answered; the same questions are hard for all runs."""
    hard = np.random.default_rng(0).normal(0, 1, items)
    own = np.random.default_rng([round(100 * rate), seed]).normal(0, 0.7, items)
    return (hard + own < stats.norm.ppf(rate, scale=math.hypot(1, 0.7))).astype(float)


def keep(folder, values, task="cloze", fingerprint="f" * 64, passes=""):
    """One metric that is a mean, and one that is not."""
    names = [f"q{n}" for n in range(len(values))]
    parts = [("acc", values, np.nan), ("word_perplexity", -values - 1, 3.0)]
    table = pd.concat([pd.DataFrame({"item": names, "metric": m, "value": v, "weight": w}) for m, v, w in parts])
    perplexity = math.exp((values + 1).sum() / (3 * len(values)))
    metrics = {
        "acc": {"value": values.mean(), "stderr": None, "higher_is_better": True, "is_mean": True},
        "word_perplexity": {"value": perplexity, "stderr": 0.1, "higher_is_better": False, "is_mean": False},
    }
    facts = {"task": task, "items": len(values), "chance": 0.25, "passes": passes, "metrics": metrics}
    write_score(RunFolder(folder), score_identity(RunFolder(folder), None, task, fingerprint), table, facts)


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folders = planted.plant(root, POINTS, (0.0,) * 3, seeds=(0, 1, 2))
    for place, folder in enumerate(folders):
        passes = "growing prefixes" if place >= 6 else ""
        keep(folder, answers(RATES[place // 3], place % 3), passes=passes)
    return load_frame([root])


@pytest.fixture(scope="module")
def table(frame):
    return score_table(frame, "dense 1x")


def test_a_score_is_the_mean_over_seeds_with_its_error_over_questions(table):
    assert tuple(table) == COLUMNS and len(table) == 6
    row = table[table["metric"] == "acc"].set_index("label").loc["token top-2"]
    by_seed = np.array([answers(0.6, seed) for seed in range(3)])
    assert row["value"] == pytest.approx(by_seed.mean())
    assert (row["seeds"], row["items"], row["chance"]) == (3, 120, 0.25)
    assert row["stderr"] == pytest.approx(stats.sem(by_seed.mean(axis=0)))
    assert row["seed_sd"] == pytest.approx(by_seed.mean(axis=1).std(ddof=1))


def test_a_difference_is_paired_question_by_question_and_seed_by_seed(table):
    rows = table[table["metric"] == "acc"].set_index("label")
    own, other = (np.array([answers(rate, seed) for seed in range(3)]).T for rate in (0.6, 0.4))
    row = rows.loc["token top-2"]
    assert row["difference"] == pytest.approx((own - other).mean()) and row["pairs"] == 3
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(drawn_by_hand(own - other), abs=0.008)
    unpaired = 2 * 1.96 * math.hypot(stats.sem(own.mean(axis=1)), stats.sem(other.mean(axis=1)))
    assert row["difference_high"] - row["difference_low"] < unpaired, "pairs tell away what is hard for all"
    assert pd.isna(rows.loc["dense 1x", "difference"])


def drawn_by_hand(values_IS):
    """Questions and seeds drawn with replacement, one resample at a time."""
    draw, means = np.random.default_rng(5), []
    for _ in range(4000):
        questions = draw.integers(0, len(values_IS), len(values_IS))
        seeds = draw.integers(0, values_IS.shape[1], values_IS.shape[1])
        means.append(values_IS[np.ix_(questions, seeds)].mean())
    return tuple(np.quantile(means, [0.025, 0.975]))


def test_with_one_seed_the_interval_is_that_over_questions():
    values = answers(0.6, 0) - answers(0.4, 0)
    found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert bootstrap_interval(values[:, None]) == pytest.approx((found.low, found.high), abs=0.01)


@pytest.mark.simulation
@pytest.mark.parametrize(("question_sd", "seed_sd"), [(0.3, 0.0), (0.3, 0.03), (0.3, 0.1)])
def test_intervals_cover_the_truth_whether_questions_or_seeds_make_the_difference(question_sd, seed_sd):
    """At eight seeds; bootstraps of fewer seeds are known to be narrow."""
    draw, inside, cases = np.random.default_rng(3), 0, 200
    for _ in range(cases):
        values = draw.normal(0, question_sd, (150, 1)) + draw.normal(0, seed_sd, 8) + draw.normal(0, 0.4, (150, 8))
        low, high = bootstrap_interval(values)
        inside += low <= 0 <= high
    assert inside / cases > 0.9


def test_a_metric_that_is_no_mean_has_no_difference_and_the_lowest_stands_first(table):
    own = table[table["metric"] == "word_perplexity"]
    assert own[["stderr", "difference"]].isna().all(axis=None) and own["chance"].isna().all()
    rows = [row for row in score_cells(table, "dense 1x", {}).rows if row[1] == "word_perplexity"]
    assert [float(row[4]) for row in rows] == sorted(float(row[4]) for row in rows)


def test_points_that_share_no_seed_are_compared_over_all_of_their_seeds(tmp_path):
    for routing, rate, seeds in ((planted.DENSE_1X, 0.4, (0, 1)), (planted.TOKEN_2, 0.6, (2, 3, 4))):
        for folder, seed in zip(planted.plant(tmp_path, (routing,), (0.0,), seeds=seeds), seeds, strict=True):
            keep(folder, answers(rate, seed))
    row = score_table(load_frame([tmp_path]), "dense 1x").query("metric == 'acc'").set_index("label").loc["token top-2"]
    own = np.mean([answers(0.6, seed).mean() for seed in (2, 3, 4)]) - np.mean([answers(0.4, s).mean() for s in (0, 1)])
    assert row["difference"] == pytest.approx(own) and row["pairs"] == 0


def test_answers_to_other_questions_stand_by_themselves(tmp_path):
    first, second = planted.plant(tmp_path, POINTS[:2], (0.0, 0.0), seeds=(0,))
    keep(first, answers(0.4, 0))
    keep(second, answers(0.6, 0, 80), fingerprint="e" * 64)
    table = score_table(load_frame([tmp_path]), "dense 1x").query("metric == 'acc'")
    assert sorted(table["items"]) == [80, 120] and table["difference"].isna().all()


def test_only_what_was_asked_for_is_shown(tmp_path):
    (folder,) = planted.plant(tmp_path, POINTS[:1], (0.0,), seeds=(0,))
    for task, fingerprint in (("cloze", "e"), ("cloze", "f"), ("topic", "f")):
        keep(folder, answers(0.4, 0), task, fingerprint * 64)
    table = score_table(load_frame([tmp_path]), "dense 1x", {("cloze", "f" * 64), ("topic", "e" * 64)})
    assert list(table["task"]) == ["cloze", "cloze"]


def test_what_was_not_scored_has_no_rows(tmp_path):
    planted.plant(tmp_path, POINTS[:1], (0.0,))
    assert len(score_table(load_frame([tmp_path]), "dense 1x")) == 0


def test_people_read_marks_chance_and_how_it_was_read(table):
    cells = score_cells(table, "dense 1x", {"sequence top-2": "†"}, ["a note"])
    assert [cells.rows[place][1] for place in (0, 3)] == ["acc", "word_perplexity"] and list(cells.rules) == [3]
    (leaking, *_) = [row for row in cells.rows if row[2] == "sequence top-2 †"]
    assert leaking[6] == "0.25" and leaking[8] == "growing prefixes"
    assert cells.notes[-1] == "a note" and any("growing prefixes: each" in note for note in cells.notes)


def test_a_study_writes_its_scores_beside_its_tables(frame):
    (part,) = study_of(frame).parts
    name, found, cells = list(report.tables(part))[-1]
    assert name == "scores" and len(found) == 6 and any("†" in row[2] for row in cells.rows)


def test_the_page_has_them_too(frame):
    (part,) = study_of(frame).parts
    found = list(tables_of(part, "p"))[-1]
    assert (found.id, len(found.rows)) == ("pscores", 6)
    assert any(row[2].text.startswith("sequence top-2") and "†" in row[2].text for row in found.rows)


def test_an_interval_takes_two_values():
    assert all(map(math.isnan, bootstrap_interval(np.ones((1, 3)))))
    assert bootstrap_interval(np.ones((5, 2))) == (1.0, 1.0)
