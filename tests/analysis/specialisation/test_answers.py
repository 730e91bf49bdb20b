"""Tables over runs, and what is said of them: planted routes, nothing trained."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.specialisation.answers import answers, control_lines
from moe_study.analysis.specialisation.closing import MOST_POINTS, closing_lines
from moe_study.analysis.specialisation.over_runs import OVER_SEEDS, by_run, over_seeds_of
from moe_study.analysis.specialisation.points import points_of
from moe_study.analysis.specialisation.report import MOST_ROWS, write_report
from moe_study.analysis.specialisation.run_tables import COLUMNS, CONTROL
from moe_study.analysis.specialisation.sentences import sentences
from moe_study.analysis.statistics import interval
from tests.analysis.specialisation.planted_runs import PERMUTATIONS, dense_runs, planted_runs


@pytest.fixture(scope="module")
def explained():
    return planted_runs("language", "explained", explained=True)


@pytest.fixture(scope="module")
def unexplained():
    return planted_runs("language", "unexplained", leaks=True)


@pytest.fixture(scope="module")
def runs(explained, unexplained):
    return [*explained, *unexplained, *dense_runs()]


def line_of(lines, point):
    (line,) = [line.strip() for line in lines if line.strip().startswith(f"{point}:")]
    return line


def test_by_run_holds_every_number_of_every_run(runs):
    for name, columns in COLUMNS.items():
        whole = by_run(runs, name)
        assert set(whole["point"]) == {"explained", "unexplained"}
        for key, own in whole.groupby("key"):
            (run,) = [run for run in runs if run.key == key]
            assert (own["point"] == run.point).all() and (own["seed"] == run.seed).all()
            for column in (column for column in columns if column not in ("null", "seed")):
                assert repr(own[column].to_list()) == repr(run.tables[name][column].to_list())
        assert "null" not in whole


def test_over_seeds_every_number_is_a_mean_with_its_t_interval(runs):
    for name, numbers in OVER_SEEDS.items():
        table, whole = over_seeds_of(runs, name), by_run(runs, name)
        assert table["seeds"].eq(4).all() and table.groupby("point")["leaks"].first().to_dict() == {
            "explained": False,
            "unexplained": True,
        }
        if name in ("committee", "co_activation"):
            continue
        row = table.iloc[-1]
        own = whole[(whole[["point", *numbers.by]] == row[["point", *numbers.by]]).all(axis=1)]
        assert len(own) == 4
        for number in numbers.of:
            values = own[number].dropna()
            expected = interval(values)
            if len(values):
                found = row[number], row[f"{number}_low"], row[f"{number}_high"]
                assert found == pytest.approx((expected.mean, expected.low, expected.high), nan_ok=True)
            else:
                assert np.isnan(row[number])


def test_committees_and_pairs_count_once_for_each_run(runs):
    whole, table = by_run(runs, "committee"), over_seeds_of(runs, "committee")
    for row in table.to_dict("records"):
        own = whole[(whole[["point", "layer", "label"]] == [row["point"], row["layer"], row["label"]]).all(axis=1)]
        assert row["members"] == pytest.approx(own["member"].sum() / 4)
        assert row["coverage"] == pytest.approx(own.groupby("key")["coverage"].first().mean())
    pairs = by_run(runs, "co_activation")
    pairs = pairs[(pairs["first"] != pairs["second"]) & (pairs["point"] == "explained") & (pairs["layer"] == 1)]
    (lift,) = over_seeds_of(runs, "co_activation").query("point == 'explained' and layer == 1")["largest_lift"]
    assert lift == pytest.approx(pairs.groupby("key")["lift"].max().mean())


def test_nothing_is_left_where_clusters_know_the_label_and_all_where_they_know_nothing(runs):
    lines = list(control_lines(runs))
    assert [line.partition(":")[0] for line in lines] == ["explained", "unexplained †"]
    ours = over_seeds_of(runs, CONTROL).set_index(["point", "layer", "label", "of", "given"])["excess"]
    for line, point, remains in (
        (lines[0], "explained", "may be nothing"),
        (lines[1], "unexplained", "is left"),
    ):
        parts = line.partition(": ")[2].split("; ")
        assert [re.search(r"about (.*) in layer (\d)", part).groups() for part in parts] == [("language", "1")]
        own, left = ours[point, 1, "language", "expert", ""], ours[point, 1, "language", "expert", "cluster"]
        assert parts[0].startswith(f"of {own:.4f} [") and f", {left:z.4f} [" in parts[0] and parts[0].endswith(remains)
        assert own > 0.1 and (left > 0.8 * own) == (point == "unexplained")


def test_labels_of_tokens_are_controlled_beyond_the_token_id():
    (line,) = control_lines(planted_runs("part of speech", "speech", names=()))
    assert re.search(r"^speech: of 0\.\d{4} \[.*\] about part of speech beyond token id in layer 1, 0\.\d{4} ", line)


def test_one_seed_is_described_where_it_leaves_its_null_and_its_numbers_have_no_interval(unexplained):
    lines = list(answers(unexplained[:1]))
    (line,) = control_lines(unexplained[:1])
    assert "about language in layer 1" in line and line.endswith("is left") and "[" not in line
    assert not any("[" in line or "nan" in line for line in lines)


def test_routes_that_follow_nothing_leave_nothing_to_ask():
    (line,) = control_lines(planted_runs("nothing", "random", names=()))
    assert line == "random: what its experts know of labels here may be nothing"


def test_a_planted_language_is_sent_as_a_label_router_would_and_lies_apart(runs):
    lines = list(answers(runs))
    headings = [line for line in lines if not line.startswith(" ")]
    assert len(headings) == 4 and all(line.endswith("?") for line in headings)
    blocks = {h: lines[lines.index(h) + 1 : lines.index(h) + 3] for h in headings}
    agreement, load, distances = (blocks[heading] for heading in headings[1:])
    row = over_seeds_of(runs, "agreement").query("point == 'explained' and label == 'language' and layer == 1").iloc[0]
    share, low, high = row["share"], row["share_low"], row["share_high"]
    expected = f"by language {share:.3f} [{low:.3f}, {high:.3f}] of the tokens in layer 1"
    assert expected in line_of(agreement, "explained")
    assert f"chance {row['chance']:.3f}, at best {row['bound']:.3f}" in line_of(agreement, "explained")
    row = over_seeds_of(runs, "load").query("point == 'explained'").nlargest(1, "largest_violation").iloc[0]
    assert f"takes {1 + row['largest_violation']:.2f} [" in line_of(load, "explained")
    assert f"in layer {row['layer']}" in line_of(load, "explained")
    row = over_seeds_of(runs, "distances").query("point == 'explained' and label == 'language' and layer == 1").iloc[0]
    assert f"by language {row['distance']:.3f} [" in line_of(distances, "explained")
    assert "of language 0 and language 1 in layer 1" in line_of(distances, "explained")
    assert line_of(distances, "unexplained †")


def test_unused_experts_are_said():
    crowded = planted_runs("language", "crowded", seeds=2, names=("load",))
    for run in crowded:
        run.tables["load"]["unused"] = [0, 3]
        run.tables["load"]["dropped"] = [0.0, 0.25]
    (line,) = [line for line in answers(crowded) if "busiest" in line]
    assert "3 experts are not used" in line and "25.0% of the picks are dropped" in line


def test_measures_that_were_not_made_are_passed_over(explained):
    few = [run.__class__(run.point, run.seed, run.leaks, run.key, {"load": run.tables["load"]}) for run in explained]
    lines = list(answers(few))
    assert len(lines) == 2 and "busiest" in lines[1]


def test_short_sentences_name_what_is_not_shown_in_one_line(runs):
    points = points_of([run.information for run in runs])
    full, short = list(sentences(points, PERMUTATIONS)), list(sentences(points, PERMUTATIONS, short=True))
    asked = [line for line in short if line.startswith("Do experts follow")]
    assert asked and all("shown in" in "".join(short) and line in full for line in asked)
    (rest,) = [line for line in short if line.startswith("Not shown at any point, in any layer: ")]
    named = rest.partition(": ")[2].split(", ")
    assert {f"Do experts follow {name}?" for name in named} | set(asked) == {
        line for line in full if line.startswith("Do experts follow")
    }
    assert "Do experts follow language?" in asked and "topic" in named


def test_closing_lines_say_language_and_topic_in_percent_with_chance_and_verdict(runs):
    points = points_of([run.information for run in runs])
    lines = list(closing_lines(points, "some texts", "type this"))
    frame = {(p.label, r.layer, r.question): r.over_seeds for p in points for r in p.rows}
    own = frame["explained", 1, ("language", "")]
    line = line_of(lines, "explained (4 seeds)")
    expected = f"{100 * own.value.mean:.1f}% of its language in layer 1 ({100 * own.null_mean:.1f}% by chance; shown)"
    assert expected in line and re.search(r"of its topic in layer \d \([\d.]+% by chance; not shown\)$", line)
    assert "some texts" in lines[0] and lines[-1] == "More: type this"
    assert line_of(lines, "unexplained † (4 seeds)") and sum(line.startswith("† ") for line in lines) == 1
    assert not any("dense" in line for line in lines)


def test_closing_lines_stay_few(explained):
    one = points_of([explained[0].information])
    many = list(closing_lines(one * (MOST_POINTS + 3), "some texts", "type this"))
    assert sum(line.startswith("  explained (1 seed)") for line in many) == MOST_POINTS
    assert "  (and 3 more points)" in many and "one seed, not tested" in many[1]
    dense = points_of([run.information for run in dense_runs()])
    assert list(closing_lines(dense, "some texts", "type this")) == ["What do experts attend to? No run has experts"]


def test_files_hold_all_tables_and_long_ones_are_left_to_them(runs, tmp_path):
    points = points_of([run.information for run in runs])
    written = write_report(points, runs, ["A line"], tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        "specialisation.md",
        "specialisation.csv",
        *(f"{name}.csv" for name in OVER_SEEDS),
        *(f"by_run/{name}.csv" for name in COLUMNS),
    }
    for name in OVER_SEEDS:
        read = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False, na_values=["", "nan"])
        expected = over_seeds_of(runs, name)
        for number in OVER_SEEDS[name].of:
            np.testing.assert_array_equal(read[number], expected[number].astype(float))
    read = pd.read_csv(io.StringIO((tmp_path / "by_run" / "shares.csv").read_text(encoding="utf-8")))
    np.testing.assert_array_equal(read["share"], by_run(runs, "shares")["share"])
    text = (tmp_path / "specialisation.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == len(OVER_SEEDS)
    for block in text.split("\n## "):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1 and len(rows) <= MOST_ROWS + 2
