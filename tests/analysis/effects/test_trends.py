"""Trends over size: slopes against closed forms and statsmodels, known trends in whole studies, coverage simulated."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf

from moe_study.analysis import report
from moe_study.analysis.comparison import Verdict, as_one_family
from moe_study.analysis.effects.trends import AskedTrend, slopes, trends
from moe_study.analysis.effects.wording import trend_sentence
from moe_study.analysis.format import count
from moe_study.analysis.frame import load_frame
from moe_study.analysis.plots.trends import differences_over_size
from moe_study.analysis.results.verdicts import FAILS, HOLDS, LACKING, findings
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.study import study_of
from moe_study.runs.members import Launch, Members, PlannedRung, PlannedTrend
from moe_study.sweeps.claims import Claim, Claims, Expected
from tests.analysis import planted
from tests.told import told

SIZES = np.array([21_000.0, 46_000.0, 127_000.0])
PAIRS = tuple((f"{width}", f"two {width}", f"dense {width}") for width in (16, 32, 64))
ASKED = AskedTrend("two", "dense", "model.width", "active_params", PAIRS)


def losses_of(gap_MS, level_MS=0.0):
    """Losses of both sides: the second side's is `level_MS`, the first side's is larger by `gap_MS`."""
    second_MS = np.broadcast_to(level_MS, gap_MS.shape)
    rows = {f"two {w}": second + gap for w, second, gap in zip((16, 32, 64), second_MS, gap_MS, strict=True)}
    rows |= {f"dense {w}": second for w, second in zip((16, 32, 64), second_MS, strict=True)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=range(gap_MS.shape[1]))


def sizes(size_M=SIZES):
    return pd.DataFrame({"active_params": dict(zip(("dense 16", "dense 32", "dense 64"), size_M, strict=True))})


@pytest.fixture
def gap_MS():
    random = np.random.default_rng(3)
    return -0.02 * np.log2(SIZES)[:, None] + random.normal(0, 0.01, (3, 5)) + random.normal(0, 0.3, 5)


def test_slopes_are_those_of_least_squares(gap_MS):
    x_M = np.log2(SIZES)
    expected = [np.polyfit(x_M, gap_M, 1)[0] for gap_M in gap_MS.T]
    assert slopes(SIZES, gap_MS) == pytest.approx(expected)
    assert slopes(SIZES, np.stack([gap_MS, 2 * gap_MS]))[1] == pytest.approx(2 * np.array(expected))


def test_a_trend_is_the_t_test_of_the_slopes_of_seeds(gap_MS):
    level_MS = np.random.default_rng(4).normal(3, 1, gap_MS.shape)  # what both sides share at a size and seed is gone
    (found,) = trends([ASKED], losses_of(gap_MS, level_MS), sizes())
    expected = scipy.stats.ttest_1samp([np.polyfit(np.log2(SIZES), gap_M, 1)[0] for gap_M in gap_MS.T], 0)
    assert found.difference.mean == pytest.approx(expected.statistic * found.difference.sd / np.sqrt(5))
    assert found.difference.p == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.seeds == (0, 1, 2, 3, 4) and [rung.size for rung in found.rungs] == list(SIZES)
    assert [rung.difference.mean for rung in found.rungs] == pytest.approx(gap_MS.mean(axis=1))


def test_the_slope_is_that_of_a_regression_with_a_level_for_each_seed(gap_MS):
    rows = [{"gap": gap_MS[m, s], "x": np.log2(SIZES[m]), "seed": s} for m, s in itertools.product(range(3), range(5))]
    fitted = smf.ols("gap ~ x + C(seed)", pd.DataFrame(rows)).fit()
    (found,) = trends([ASKED], losses_of(gap_MS), sizes())
    assert found.difference.mean == pytest.approx(fitted.params["x"])
    line = np.polyfit(np.log2(SIZES), gap_MS.mean(axis=1), 1)
    assert found.off_line == pytest.approx(np.abs(gap_MS.mean(axis=1) - np.polyval(line, np.log2(SIZES))).max())


def test_sizes_go_by_their_size_and_not_by_the_file_s_order(gap_MS):
    turned = dataclasses.replace(ASKED, pairs=ASKED.pairs[::-1])
    expected = [dataclasses.replace(one, asked=turned) for one in trends([ASKED], losses_of(gap_MS), sizes())]
    assert told(trends([turned], losses_of(gap_MS), sizes())) == told(expected)


def test_a_seed_that_lacks_a_run_has_no_slope(gap_MS):
    gap_MS[1, 2] = np.nan
    (found,) = trends([ASKED], losses_of(gap_MS), sizes())
    assert found.seeds == (0, 1, 3, 4) and found.difference.n == 4
    assert all(rung.difference.n == 4 for rung in found.rungs)


@pytest.mark.parametrize("size_M", [(1.0, np.nan, 2.0), (3.0, 3.0, 3.0), (0.0, 1.0, 2.0)])
def test_sizes_that_are_not_known_or_all_alike_have_no_trend(gap_MS, size_M):
    (found,) = trends([ASKED], losses_of(gap_MS), sizes(size_M))
    assert found.verdict is Verdict.NO_PAIR and found.rungs == () and "so no trend" in trend_sentence(found)


def test_points_without_a_run_have_no_trend(gap_MS):
    (found,) = trends([ASKED], losses_of(gap_MS).drop(index="two 32"), sizes())
    assert found.difference.n == 0 and trend_sentence(found).startswith(
        "two − dense has no seed with a result at every"
    )


@pytest.mark.parametrize(
    ("slope", "noise", "seeds", "said"),
    [
        (-0.1, 0.001, 5, "per doubling of active parameters the difference falls by 0.1"),
        (0.1, 0.001, 5, "the difference rises by 0.0996 nats per token"),
        (0.0, 0.001, 5, "the difference moves by less than 0.02 nats per token: "),
        (0.0, 0.5, 5, "the difference cannot be told from one that stays: "),
        (-0.1, 0.001, 1, "at one seed, so this may be chance"),
    ],
)
def test_sentences_claim_what_was_tested(slope, noise, seeds, said):
    random = np.random.default_rng(0)
    gap_MS = slope * np.log2(SIZES)[:, None] + random.normal(0, noise, (3, seeds))
    (found,) = as_one_family(trends([ASKED], losses_of(gap_MS), sizes(), margin=0.02))
    assert said in trend_sentence(found)
    assert " at 21k and " in trend_sentence(found) and trend_sentence(found).endswith("off the line")


def test_a_flat_line_through_differences_that_are_not_level_says_so():
    random = np.random.default_rng(0)
    gap_MS = np.array([-0.03, -0.085, -0.03])[:, None] + random.normal(0, 0.001, (3, 5))
    (found,) = as_one_family(trends([ASKED], losses_of(gap_MS), sizes(), margin=0.02))
    said = trend_sentence(found)
    assert said.endswith("so this holds of the line and not from size to size")


# In whole studies ---------------------------------------------------------------------------------------------------

WIDTHS, SEEDS = (16, 32, 64), range(4)
GAINS = (-0.02, -0.05, -0.09)  # of token top-2 on dense 2x


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(folders of runs, keys of both sides by width): the gain grows with width."""
    root, found, keys = tmp_path_factory.mktemp("sizes") / "runs", [], {}
    for width, gain in zip(WIDTHS, GAINS, strict=True):
        own = planted.plant(
            root, (planted.DENSE_2X, planted.TOKEN_2), (0.0, gain), SEEDS, rng=width, width=width, heads=2
        )
        names = [folder.name for folder in own]
        keys[width] = PlannedRung(str(width), tuple(names[4:]), tuple(names[:4]))
        found += own
    return found, keys


def planned(keys, **more):
    text = "trend of two against dense over model.width by active_params"
    return PlannedTrend(text, "two", "dense", "model.width", "active_params", tuple(keys.values()), **more)


@pytest.fixture(scope="module")
def study(folders):
    found, keys = folders
    return study_of(load_frame(found), [Members((Launch(trends=(planned(keys, why="Grows?", margin=0.02),)),))])


def test_a_planned_trend_is_tested_with_all_else_and_found_with_its_size(study):
    (part,) = study.parts
    (trend,) = part.trends
    active = part.runs[part.runs["routing.selection"] == "dense"].groupby("model.width")["num_params"].first()
    slope = np.polyfit(np.log2(active.to_numpy(float)), GAINS, 1)[0]
    assert study.planned and study.family == 1 and trend.verdict is Verdict.LOWER
    assert trend.interval.low < slope < trend.interval.high
    assert [rung.size for rung in trend.rungs] == list(active)


def test_answers_tables_and_claims_know_trends(study, tmp_path, capsys):
    (part,) = study.parts
    said = list(report.answers(study))
    assert any(
        "per doubling of active parameters the difference falls by" in line and "| Grows?" in line for line in said
    )
    table = {name: frame for name, frame, _ in report.tables(part)}["trends"]
    assert table["verdict"].tolist() == ["lower"] and table["n"].tolist() == [4]
    text = "trend of two against dense over model.width by active_params"
    made = [Claim(text, "", "Grows?", "yes", expect) for expect in (Expected.LOWER, Expected.SAME)]
    found = findings(study, Claims("a paper", (), tuple(made)))
    assert [one.verdict for one in found] == [HOLDS, FAILS]
    (trend,) = part.trends
    at_each_size = ", ".join(f"{rung.difference.mean:+.3f} at {count(rung.size)}" for rung in trend.rungs)
    assert found[0].pair == f"two − dense ({at_each_size}), per doubling of active parameters" and found[0].hours > 0


def test_a_trend_without_the_runs_of_one_size_is_not_run(folders):
    runs, keys = folders
    members = [Members((Launch(trends=(planned(keys),)),))]
    found = study_of(load_frame(runs[:-4]), members)
    claim = Claim("trend of two against dense over model.width by active_params", "", "Grows?")
    assert [one.verdict for one in findings(found, Claims("", (), (claim,)))] == [LACKING]


def test_trends_are_drawn_with_every_size(study):
    figure = differences_over_size(study.parts[0].trends)
    (axes,) = figure.axes
    dots = next(line for line in axes.lines if line.get_marker() == "o")
    assert dots.get_ydata() == pytest.approx(GAINS, abs=0.01) and axes.get_xlabel() == "active parameters"
    assert differences_over_size(()) is None


# Coverage -----------------------------------------------------------------------------------------------------------


@pytest.mark.simulation
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("shared", [0.0, 0.03])  # what a seed does to all sizes alike
@pytest.mark.parametrize("noise_M", [(0.01, 0.01, 0.01), (0.03, 0.01, 0.003)])  # the same at every size, and falling
def test_intervals_of_trends_cover_the_true_slope(seeds, shared, noise_M):
    repeats, slope = 20_000, -0.02
    random = np.random.default_rng(11)
    noise = random.normal(0, 1, (repeats, 3, seeds)) * np.array(noise_M)[:, None]
    gap_RMS = slope * np.log2(SIZES)[:, None] + noise + random.normal(0, shared, (repeats, 1, seeds))
    _, _, low, high = t_interval(slopes(SIZES, gap_RMS))
    covered = np.mean((low < slope) & (slope < high))
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / repeats))
