"""`compare:` in a sweep file: from partial overrides on two sides to the runs that are meant, or to an error."""

import pytest

from moe_study.commands.plan import plan_lines
from moe_study.errors import ConfigError
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import read_members

GRID = """
base: {routing.num_experts: 4}
seeds: [0, 1]
points:
  - {routing: dense, routing.ffn_multiplier: [1, 2]}
  - {routing: [token_top1, token_top2, token_top2_frozen]}
"""


def routings(made, keys):
    """Selection, K and expert size of the runs with these keys, each once, and their seeds."""
    configs = [run.config for run in made.runs if run.key in keys]
    assert len(configs) == len(keys)
    return {(c.routing.selection.value, c.routing.k) for c in configs}, [c.run.seed for c in configs]


def test_each_side_is_one_point_over_all_seeds(plan):
    made = plan("compare: [[{routing: token_top2}, {routing: token_top1}]]")
    (found,) = made.comparisons
    assert routings(made, found.left_runs) == ({("top_k", 2)}, [0, 1])
    assert routings(made, found.right_runs) == ({("top_k", 1)}, [0, 1])
    assert (found.left, found.right) == ("routing=token_top2", "routing=token_top1")
    assert (found.why, found.margin, found.late) == ("", None, False)


def test_a_question_and_margins_may_stand_with_it(plan):
    made = plan("""
margin: 0.03
compare:
  - {pair: [{routing: token_top2}, {routing: token_top1}], why: "Do two experts
      beat one?", margin: 0.5}
  - [{routing: token_top2_frozen}, {routing: token_top2}]
""")
    assert [(c.why, c.margin) for c in made.comparisons] == [("Do two experts beat one?", 0.5), ("", 0.03)]


@pytest.mark.parametrize(
    "side",
    [
        "{routing: dense, routing.ffn_multiplier: 2}",
        "{routing.ffn_multiplier: 2}",
        "{routing.ffn_multiplier: 2.0, routing.num_experts: 4}",  # as written, though a dense point has no experts
        "{routing.selection: dense, routing.expert_size: 768}",  # what the size of nano comes out as
        "{routing.ffn_multiplier: [2, 3]}",
    ],
)
def test_a_point_is_known_by_its_choices_by_values_as_written_and_by_values_as_resolved(plan, side):
    made = plan(f"compare: [[{side}, {{routing: token_top1}}]]")
    (keys,) = (found.left_runs for found in made.comparisons)
    sizes = {run.config.routing.expert_size for run in made.runs if run.key in keys}
    assert sizes == {768} and len(keys) == 2


def test_a_point_that_is_written_in_two_ways_is_one_point(plan):
    grid = "points: [{routing: dense, routing.k: [1, 2]}, {routing: token_top1}]\n"
    made = plan("compare: [[{routing: token_top1}, {routing: dense}]]", grid=grid)
    assert len(made.runs) == 2 and len(made.comparisons[0].right_runs) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("compare: [[{routing: dense}, {routing: token_top1}]]", "matches 2 points .* add routing.ffn_multiplier to"),
        ("compare: [[{routing.k: 2}, {routing: token_top1}]]", "matches 2 points of the sweep; add routing"),
        ("compare: [[{routing: xmoe}, {routing: token_top1}]]", "{routing: xmoe} matches no point of the sweep"),
        ("compare: [[{routing.num_experts: 8}, {routing: token_top1}]]", "matches no point of the sweep"),
        ("compare: [[{routing: token_top1}, {routing.k: 1, routing: token_top1}]]", "both sides are the same point"),
        ("compare: [[{routing.kk: 1}, {routing: token_top1}]]", "unknown key routing.kk"),
        ("compare: [[{routing: token_top1}, {routing: token_top2, run.seed: 0}]]", "leave run.seed out"),
        ("compare: [[{routing: token_top1}]]", "a comparison has two sides"),
        ("compare: [[{routing: token_top1}, token_top2]]", "a comparison has two sides"),
        ("compare: [[{routing: token_top1}, {}]]", "a comparison has two sides"),
        ("compare: [{routing: token_top1}]", "an entry of compare must be"),
        ("compare: {routing: token_top1}", "compare must be a list"),
        ("compare: [{pair: [{routing: token_top1}, {routing: token_top2}], why: 3}]", "why must be a text"),
        ("margin: 0\ncompare: []", "margin must be a number of nats per token above 0"),
        ("compare: [{pair: [{routing: token_top1}, {routing: token_top2}], margin: -1}]", "margin must be a number"),
        (
            "compare: [[{routing: token_top1}, {routing: token_top2}], [{routing: token_top2}, {routing: token_top1}]]",
            "twice; write it once",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_when_the_sweep_is_planned(plan, text, said):
    with pytest.raises(ConfigError, match=said):
        plan(text)


def test_an_invalid_point_is_told_before_the_comparisons_that_want_it(plan):
    point = "  - {routing: token_top2, routing.num_experts: 1}\n"
    compare = "compare: [[{routing.num_experts: 1}, {routing: token_top1}]]"
    made = plan(point + compare)
    assert made.invalid and not made.comparisons
    with pytest.raises(ConfigError, match="matches no point"):
        plan(f"{point}skip_invalid: true\n{compare}")


def test_a_command_line_that_moves_the_points_loses_comparisons_and_says_so(plan):
    sides = ("[{routing: token_top2}, {routing: token_top1}]", "[{routing: token_top2}, {routing: token_top2_frozen}]")
    text = f"compare: [{', '.join(sides)}]"
    moved = plan(text, "routing.num_experts=4,8")
    assert not moved.comparisons
    assert all(line.startswith("not compared under this command line: compare: ") for line in moved.warnings())
    kept = plan(text, "run.tokens=100_000")
    assert len(kept.comparisons) == 2 and not kept.warnings()


def test_the_plan_lists_what_will_be_compared(plan):
    lines = list(plan_lines(plan("compare: [{pair: [{routing: token_top2}, {routing: token_top1}], why: 'Two?'}]")))
    assert "1 comparison(s), tested; all others are described without a verdict:" in lines
    assert "  routing=token_top2  against  routing=token_top1  2 seed(s)    Two?" in lines


def test_the_launch_records_the_comparisons_and_what_runs_are_called(plan, tmp_path):
    made = plan("compare: [[{routing: token_top2}, {routing: token_top1}]]")
    made.record_members()
    members = read_members(tmp_path / "runs", "mine")
    assert members.comparisons == list(made.comparisons)
    assert members.names[made.comparisons[0].left_runs[1]] == "routing=token_top2 run.seed=1"
    plan("compare: [[{routing: token_top2}, {routing: token_top1}]]", "run.seed=7").record_members()
    (both,) = read_members(tmp_path / "runs", "mine").comparisons
    assert len(both.left_runs) == len(both.right_runs) == 3


def test_a_comparison_that_is_added_when_its_runs_are_done_is_late_and_stays_so(plan, tmp_path):
    early = "compare: [[{routing: token_top2}, {routing: token_top1}]"
    made = plan(early + "]")
    made.record_members()
    for run in made.runs:
        folder = RunFolder.of(run.config)
        with folder.claim(run.config):
            folder.start(1)
            folder.finish({})
    for _ in range(2):
        plan(early + ", [{routing: token_top2}, {routing: token_top2_frozen}]]").record_members()
        lateness = [asked.late for asked in read_members(tmp_path / "runs", "mine").comparisons]
        assert lateness == [False, True]
