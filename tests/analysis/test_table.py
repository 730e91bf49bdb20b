import io

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from moe_study.analysis.absent import absent_runs
from moe_study.analysis.format import aligned, count, duration, number, percent
from moe_study.analysis.frame import load_frame
from moe_study.analysis.table import perplexity_table
from moe_study.analysis.table_text import to_markdown, to_text
from moe_study.analysis.tables_out import to_csv
from tests.analysis import planted


@pytest.fixture
def folders(tmp_path):
    return planted.plant(tmp_path, seeds=(0, 1, 2))


@pytest.fixture
def frame(folders):
    return load_frame(folders)


def test_perplexity_is_exp_of_the_mean_loss_with_a_multiplicative_interval(frame):
    table = perplexity_table(frame).set_index("label")
    losses = frame[frame["label"] == "token top-1"]["validation_loss"].to_numpy()
    row = table.loc["token top-1"]
    assert row["perplexity"] == pytest.approx(stats.gmean(np.exp(losses)))
    assert row["spread"] == pytest.approx(np.exp(np.std(losses, ddof=1)))
    assert row["perplexity"] ** 2 == pytest.approx(row["perplexity_low"] * row["perplexity_high"])
    low, high = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
    assert (np.log(row["perplexity_low"]), np.log(row["perplexity_high"])) == pytest.approx((low, high))


def test_differences_are_paired_to_the_reference(frame):
    table = perplexity_table(frame).set_index("label")
    wide = frame.pivot_table(index="seed", columns="label", values="validation_loss")
    expected = stats.ttest_rel(wide["token top-2"], wide["dense 1x"]).confidence_interval(0.95)
    found = table.loc["token top-2", ["difference_low", "difference_high"]].astype(float)
    assert tuple(found) == pytest.approx(tuple(expected))
    assert np.isnan(table.loc["dense 1x", "difference"]) and table.loc["token top-2", "pairs"] == 3
    other = perplexity_table(frame, reference="token top-2").set_index("label")
    assert other.loc["dense 1x", "difference"] == pytest.approx(-table.loc["token top-2", "difference"])


def test_leaking_points_stand_beneath_marked_whatever_their_loss(folders):
    frame = load_frame(folders)
    frame.loc[frame["leaks"].astype(bool), "validation_loss"] -= 1.0
    table = perplexity_table(frame)
    assert table["label"].iloc[-1] == "sequence top-2"
    assert table["loss"].iloc[:-1].is_monotonic_increasing
    lines = to_text(table).splitlines()
    leaking = next(i for i, line in enumerate(lines) if line.startswith("sequence top-2 †"))
    assert set(lines[leaking - 1]) == {"-"}
    assert any(line.startswith("† routing reads later tokens") and "not ranked" in line for line in lines)


def test_leaking_points_are_ranked_when_asked_and_still_marked(frame):
    frame = frame.copy()
    frame.loc[frame["leaks"].astype(bool), "validation_loss"] -= 1.0
    table = perplexity_table(frame, rank_leaking=True)
    assert table["label"].iloc[0] == "sequence top-2"
    text = to_text(table)
    assert "sequence top-2 †" in text and "not ranked" not in text


def test_no_mark_and_no_note_without_a_leak(frame):
    text = to_text(perplexity_table(frame[~frame["leaks"].astype(bool)]))
    assert "†" not in text and "‡" not in text


def test_points_that_mix_the_batch_are_marked(frame):
    frame = frame.copy()
    frame.loc[frame["label"] == "token top-1", "mixes_batch"] = True
    text = to_text(perplexity_table(frame))
    assert "token top-1 ‡" in text and "‡ routing reads other sequences" in text


def test_one_seed_has_no_spread_and_one_pair_no_interval(tmp_path):
    planted.plant(tmp_path, seeds=(4,))
    text = to_text(perplexity_table(load_frame([tmp_path])))
    assert "(1 pair)" in text and "±0" not in text and "nan" not in text.lower()


def test_text_columns_line_up_and_numbers_are_those_of_the_table(frame):
    table = perplexity_table(frame)
    lines = to_text(table).splitlines()
    rows = lines[2 : 2 + 5]
    assert len({len(line) for line in rows}) == 1
    for line, row in zip(rows, table.itertuples(), strict=False):
        assert f"{row.loss:.4f}" in line and f"{row.perplexity:.2f}" in line and count(row.num_params) in line


def test_markdown_has_one_row_per_point_and_equal_columns(frame):
    lines = to_markdown(perplexity_table(frame)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 6 and len({line.count("|") for line in rows}) == 1


def test_csv_keeps_all_digits_and_the_marks(frame):
    table = perplexity_table(frame)
    back = pd.read_csv(io.BytesIO(to_csv(table)))
    assert np.array_equal(back["loss"], table["loss"])
    assert back.set_index("label")["leaks"].to_dict()["sequence top-2"]


def test_unpaired_seeds_are_noted(folders):
    frame = load_frame(folders)
    frame = frame[~((frame["label"] == "dense 1x") & (frame["seed"] == 2))]
    text = to_text(perplexity_table(frame))
    assert "token top-2 shares 2 of its 3 seeds" in text


def test_absent_runs_are_listed_with_state_progress_and_reason(folders):
    planted.set_status(folders[0], "failed", {"type": "ConfigError", "message": "bad k", "traceback": ""}, 30)
    (folders[4] / "result.json").write_text("{")
    lines = [run.sentence for run in absent_runs(load_frame(folders))]
    assert any(
        line.startswith("dense 1x, seed 0 (") and "failed at step 30 of 400: ConfigError: bad k" in line
        for line in lines
    )
    assert any("is damaged: " in line and "result.json" in line for line in lines)
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999"), (1_234, "1.23k"), (124_439_808, "124M"), (6.3e9, "6.3G"), (float("nan"), "–")]
)
def test_counts_are_short(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.25, "4.2s"), (41, "41s"), (59.7, "1m00s"), (192, "3m12s"), (7500, "2h05m")]
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_columns_are_aligned_left_and_right():
    assert list(aligned([("a", "b", "c"), ("long", "1", "")], right=[1])) == ["a     b  c", "long  1"]


@pytest.mark.parametrize(("level", "text"), [(0.95, "95%"), (1 - 0.05 / 9, "99.44%"), (0.8, "80%")])
def test_levels_are_percentages_with_the_digits_they_need(level, text):
    assert percent(level) == text


def test_a_number_that_is_not_there_is_a_dash():
    assert (number(None, "{:.2f}"), number(float("nan"), "{}"), number(1.5, "{:.2f}")) == ("–", "–", "1.50")


def diverge(folder, step=30):
    planted.set_status(folder, "diverged", {"type": "Diverged", "message": "not finite", "traceback": ""}, step)


def test_a_point_whose_worse_seeds_diverged_does_not_stand_first(tmp_path):
    """Seed 0 is an easy one: judged by the seeds it has, the point that lost the others would lead by far."""
    random, losses = np.random.default_rng(0), {0: 3.0, 1: 4.0, 2: 4.1}
    folders = {}
    for place, routing in enumerate(planted.FIRST_LOOK[:4]):
        for seed, loss in losses.items():
            config = planted.config_of(routing, seed)
            folders[place, seed] = planted.plant_run(tmp_path, config, loss - 0.01 * place, random)
    diverge(folders[1, 1])
    diverge(folders[1, 2])
    table = perplexity_table(load_frame([tmp_path]))
    assert table["label"].tolist() == ["token top-2", "token top-1", "dense 1x", "dense 2x"]
    assert table["standing"].tolist() == ["ranked"] * 3 + ["lacks seeds"]
    assert table["loss"].iloc[3] < table["loss"].iloc[0]  # what would have put it first
    text = to_text(table)
    assert "dense 2x §" in text and "1 of 3" in text and "§ lacks seeds that the others have" in text
    assert "(ranked on seeds 0, 1, 2)" in text


def test_a_point_with_more_seeds_than_the_others_is_ranked_on_the_shared_ones(tmp_path):
    folders = planted.plant(tmp_path, planted.FIRST_LOOK[:3], (0.0, 0.0, 0.0), seeds=(0, 1), noise_sd=0.0)
    planted.plant_run(tmp_path, planted.config_of(planted.FIRST_LOOK[2], 7), 1.0, np.random.default_rng(0))
    table = perplexity_table(load_frame([tmp_path])).set_index("label")
    assert len(folders) == 6 and (table["standing"] == "ranked").all()
    assert table.loc["token top-1", "loss"] == pytest.approx(table.loc["dense 1x", "loss"])
    assert table.loc["token top-1", "seeds"] == 2


def test_a_sweep_under_way_is_ranked_on_the_seeds_that_most_points_have(tmp_path):
    folders = planted.plant(tmp_path, planted.FIRST_LOOK[:5], planted.EFFECTS[:5], seeds=(0, 1))
    for folder in folders[3::2]:
        planted.set_status(folder, "queued")
    table = perplexity_table(load_frame([tmp_path]))
    assert table.attrs["seeds"] == [0] and (table["standing"] == "ranked").all()


def test_a_point_without_any_result_has_a_row_that_says_why(folders):
    for folder in folders[6:9]:
        diverge(folder)
    table = perplexity_table(load_frame(folders))
    last = table.iloc[-1]
    assert (last["label"], last["standing"], last["seeds"], last["absent"]) == ("token top-1", "no result", 0, 3)
    assert last["absent_states"] == "0:diverged 1:diverged 2:diverged"
    assert last["absent_reasons"].count("diverged at step 30 of 400: Diverged: not finite") == 3
    assert "0 of 3" in to_text(table) and "nan" not in to_text(table).lower()
    back = pd.read_csv(io.BytesIO(to_csv(table))).set_index("label")
    assert back.loc["token top-1", "standing"] == "no result" and np.isnan(back.loc["token top-1", "loss"])
    assert np.isnan(back.loc["token top-1", "leaks"])  # what its routing reads was not measured


def test_what_was_executed_is_shown_and_the_nominal_figure_named_where_it_differs(frame):
    frame = frame.copy()
    own = frame["label"] == "token top-1"
    frame.loc[own, ["flops_per_token", "executed_flops_per_token"]] = [1_206_528, 1_133_880]
    text = to_text(perplexity_table(frame))
    line = next(line for line in text.splitlines() if line.startswith("token top-1"))
    assert "1.13M" in line and "1.21M" not in line
    assert "(nominal FLOPs: token top-1 1.21M)" in text
