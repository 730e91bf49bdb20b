"""Committed numbers other than plain differences, computed again from committed losses by other means: scipy and loops.

Nothing of moe_study computes here; only where results/ lies is asked.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import optimize, stats

from moe_study.sweeps.conf import project_root

ROOT = project_root()
RESULTS = ROOT / "results"
PAPERS = ("2402.13089", "2403.18926", "2308.00951", "2412.14711")


def runs_of(sweep):
    runs = pd.read_parquet(RESULTS / sweep / "runs.parquet")
    return runs[runs["state"] == "done"]


def losses_of(sweep):
    """Labels down, seeds across."""
    return runs_of(sweep).pivot_table(index="label", columns="seed", values="validation_loss")


def said(interval):
    """A mean and its interval as answers.md writes them."""
    mean, low, high = interval
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}"


def t_test(values, level=0.95):
    low, high = stats.ttest_1samp(values, 0).confidence_interval(level)
    return float(np.mean(values)), low, high


def assert_told(values, line):
    """The mean, and the interval at the level that the line says, whether it has signs or says falls and rises."""
    level = float(re.search(r"([\d.]+)% interval", line)[1]) / 100
    mean, low, high = t_test(values, level)
    told = map(float, re.search(r"\(([-+.\d]+) to ([-+.\d]+), [\d.]+% interval", line).groups())
    assert f"{abs(mean):.4f}" in line
    assert sorted(map(abs, told)) == pytest.approx(sorted(map(abs, (low, high))), abs=2e-4)


# Claims -------------------------------------------------------------------------------------------------------------


def verdict(expect, row):
    if row["verdict"] == "cannot be told apart":
        return "undecided"
    within = row["verdict"] == "same within the margin"
    within |= max(abs(row["low_tested"]), abs(row["high_tested"])) < row["margin"]
    if expect in ("same", "not_higher"):
        return "holds" if within or row["verdict"] == {"not_higher": "lower"}.get(expect) else "fails"
    return "holds" if row["verdict"] == expect else "fails"


def test_claims_that_hold_and_fail_are_counted_in_the_tables_of_comparisons():
    counts = {paper: Counter() for paper in PAPERS}
    for manifest in RESULTS.rglob("manifest.json"):
        folder = manifest.parent
        if folder.name == "replication":
            continue
        sweep = folder.relative_to(RESULTS).as_posix().partition("@")[0]
        planned = yaml.safe_load((ROOT / "sweeps" / f"{sweep}.yaml").read_text())
        tables = [
            table
            for name in ("comparisons", "effects", "trends")
            for table in folder.rglob(f"{name}.csv")
            if table.parent.name != "replication"
        ]
        compared = pd.concat(map(pd.read_csv, tables)).drop_duplicates("question").set_index("question")
        for asked in planned.get("compare") or []:
            if isinstance(asked, dict) and asked.get("expect"):
                (paper,) = [name for name in PAPERS if name in planned["source"]][:1]
                row = compared.loc[" ".join(asked["why"].split())]
                counts[paper][verdict(asked["expect"], row)] += 1
    total = sum(counts.values(), Counter())
    each = "; ".join(f"{name}: {own['holds']} of {own.total()} hold" for name, own in counts.items())
    line = (
        f"Of {total.total()} claims of the papers {total['holds']} hold at this size, {total['fails']} fail and "
        f"{total['undecided']} are undecided or lack runs ({each})."
    )
    for readme in (ROOT / "README.md", RESULTS / "README.md"):
        assert line in readme.read_text(), readme


# Trends, effects, equal cost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", ["open/scale@cpu", "open/scale@gpu"])
def test_trends_are_the_slopes_of_seeds_by_polyfit(sweep):
    runs, losses = runs_of(sweep), losses_of(sweep)
    size = runs.groupby("label")["executed_active_params"].mean()
    text = (RESULTS / sweep / "answers.md").read_text()
    widths = sorted(runs["model.width"].unique())
    for other, name in (("dense 2x", "dense"), ("token top-1", "token_top1"), ("sequence top-2", "sequence_top2_")):
        pairs = [[f"{side}, width {width}" for side in ("token top-2", other)] for width in widths]
        x = np.log2([size[right] for _, right in pairs])
        gaps = np.array([losses.loc[left] - losses.loc[right] for left, right in pairs])
        slopes = [np.polyfit(x, gap, 1)[0] for gap in gaps.T]
        (line,) = re.findall(rf"^- routing=token_top2 − routing={name}\w*: (per doubling.*)$", text, re.M)
        assert_told(slopes, line)
        off = np.abs(gaps.mean(1) - np.polyval(np.polyfit(x, gaps.mean(1), 1), x)).max()
        assert f"up to {off:.4f} off the line" in line


EFFECTS = {  # sweep -> label with +1 over label with -1; those of one entry are averaged
    "num_experts 6 † against num_experts 2 over 2 pairs of points": [
        ("token top-2 of 6", "token top-2 of 2"), ("sequence top-2 of 6", "sequence top-2 of 2"),
    ],
    "k 3 † against k 2 over 2 pairs of points": [
        ("token top-3 of 4", "token top-2 of 4"), ("sequence top-3 of 4", "sequence top-2 of 4"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("effect", EFFECTS)
def test_main_effects_are_means_of_pairs_seed_by_seed(effect):
    losses = losses_of("design/table2@cpu")
    values = np.mean([losses.loc[one] - losses.loc[other] for one, other in EFFECTS[effect]], axis=0)
    assert f"- {effect}: {said(t_test(values))}" in (RESULTS / "design/table2@cpu/answers.md").read_text()


def test_the_interaction_of_frozen_routers_and_embeddings_is_a_difference_of_differences():
    losses, embeddings = losses_of("open/frozen@cpu"), {"frozen": "frozen embeddings", "learned": "untied head"}
    gain = {
        name: losses.loc[f"token top-2, frozen, {words}"] - losses.loc[f"token top-2, {words}"]
        for name, words in embeddings.items()
    }
    text = (RESULTS / "open/frozen@cpu/answers.md").read_text()
    (line,) = re.findall(r"^- router_state x embeddings: (the change.*)$", text, re.M)
    assert_told((gain["frozen"] - gain["learned"]).to_numpy(), line)


def test_equal_cost_is_read_off_lines_over_the_logarithm_of_flops():
    runs, losses = runs_of("xmoe/dense@cpu"), losses_of("xmoe/dense@cpu")
    flops = (3 * runs["tokens"] * runs["executed_flops_per_token"]).groupby(runs["label"]).mean()
    family, text = ["dense 0.25x", "dense 0.5x", "dense 1x"], (RESULTS / "xmoe/dense@cpu/answers.md").read_text()
    for point in ("token threshold 0.9, budget 2", "token threshold 0.9, budget 4"):
        lines = [np.interp(np.log(flops[point]), np.log(flops[family]), own) for own in losses.loc[family].to_numpy().T]
        assert f"- {point} against dense at equal executed training FLOPs" in text
        assert said(t_test(losses.loc[point].to_numpy() - lines)) in text


# Equal loss ---------------------------------------------------------------------------------------------------------

CURVES = [
    [f"token threshold 0.9, budget {budget}" for budget in (2, 4, 8)],
    [f"token threshold {threshold}" for threshold in (0.25, 0.5, 0.9)],
    ["token top-2", "token top-4", "token top-1, split 8 ways"],
]


@pytest.mark.parametrize("curve", CURVES, ids=["steered", "not steered", "top-k"])
def test_shares_of_cost_at_equal_loss_are_where_paired_t_tests_turn(curve):
    """Fieller's set by root finding on the t test itself; the cost: hidden units of experts that ran."""
    runs, losses = runs_of("xmoe/threshold@cpu"), losses_of("xmoe/threshold@cpu")
    units = runs["executed_per_token"] * runs["routing.expert_size"].astype(float) / runs["routing.granularity"]
    cost = units.groupby(runs["label"]).mean()
    x = np.log(cost[curve] / cost["token top-1"]).to_numpy()
    gap = (losses.loc[curve] - losses.loc["token top-1"]).to_numpy()

    def at(where):
        return np.array([np.interp(where, x, own) for own in gap.T])

    def over(where):
        return stats.ttest_1samp(at(where), 0).pvalue - 0.05

    grid = np.linspace(x[0], x[-1], 101)
    in_set = np.array([over(where) >= 0 for where in grid])
    mean = np.array([at(where).mean() for where in grid])
    turn, begin = int(np.argmax(mean <= 0)), int(np.argmax(in_set))
    share = np.exp(optimize.brentq(lambda where: at(where).mean(), grid[turn - 1], grid[turn]))
    low = np.exp(optimize.brentq(over, grid[begin - 1], grid[begin]))
    end = int(np.flatnonzero(in_set)[-1])
    high = np.inf if in_set[-1] else np.exp(optimize.brentq(over, grid[end], grid[end + 1]))

    kept = pd.read_csv(RESULTS / "xmoe/threshold@cpu/equal_loss.csv")
    row = kept[(kept["cost"] == "expert_flops") & kept["point"].str.startswith(f"{curve[0]} to")].iloc[0]
    assert row[["share", "low", "high"]].tolist() == pytest.approx([share, low, high], rel=1e-6)
