"""`effect:` and `at:` in compare: from names of settings to the runs of every cell, or to one sentence."""

import json

import pytest

from moe_study.commands.plan import as_plain, plan_lines
from moe_study.errors import ConfigError
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, read_members, record_launch

GRID = """
base: {recipe: pico}
seeds: [0, 1]
points:
  - {routing: dense, routing.ffn_multiplier: [1, 2, 4]}
  - routing: [token_top1, token_top2, sequence_top1, sequence_top2]
    routing.gate: softmax_then_pick
    routing.num_experts: [4, 8]
"""


def only(made):
    (effect,) = made.effects
    return effect


def test_an_interaction_has_the_runs_of_each_cell_in_blocks_that_agree_in_all_else(plan):
    made = plan("compare: [{effect: [unit, k]}]")
    effect = only(made)
    assert effect.factors == ("routing.unit", "routing.k")
    assert effect.levels == (("token", "sequence"), ("1", "2"))
    assert effect.carried == ("routing.context",)  # one value in each cell
    assert {cell.block for cell in effect.cells} == {"routing.num_experts=4", "routing.num_experts=8"}
    configs = {run.key: run.config for run in made.runs}
    for cell in effect.cells:
        assert {configs[key].run.seed for key in cell.runs} == {0, 1}
        for key in cell.runs:
            routing = configs[key].routing
            assert (routing.unit.value, str(routing.k)) == cell.levels
            assert cell.block == f"routing.num_experts={routing.num_experts}"
    assert len(effect.cells) == 8


def test_a_main_effect_is_averaged_over_all_that_was_crossed_with_it(plan):
    effect = only(plan("compare: [{effect: k, why: Two, margin: 0.02}]"))
    assert effect.levels == (("1", "2"),) and (effect.why, effect.margin) == ("Two", 0.02)
    blocks = [cell.block for cell in effect.cells]
    assert len(set(blocks)) == 4 and all(blocks.count(block) == 2 for block in blocks)


def test_where_narrows_the_points_and_tells_two_requests_apart(plan):
    made = plan("compare: [{effect: k}, {effect: k, where: {routing.unit: token, routing.num_experts: 8}}]")
    whole, part = made.effects
    assert len(part.cells) == 2 and {cell.block for cell in part.cells} == {""}
    assert part.text == "effect of k where routing.unit=token routing.num_experts=8" != whole.text


def test_a_group_is_a_setting_and_full_names_are_as_good_as_short_ones(plan):
    effect = only(plan("compare: [{effect: [routing, num_experts]}]"))
    assert effect.factors == ("routing", "routing.num_experts")
    assert effect.levels[0] == ("token_top1", "token_top2", "sequence_top1", "sequence_top2")
    assert only(plan("compare: [{effect: routing.k}]")).factors == ("routing.k",)


def test_a_missing_cell_is_left_out_and_the_rest_stays(plan):
    grid = GRID + "exclude: [{routing: sequence_top2, routing.num_experts: 8}]\n"
    effect = only(plan("compare: [{effect: [unit, k]}]", grid=grid))
    assert len(effect.cells) == 4 and {cell.block for cell in effect.cells} == {"routing.num_experts=4"}
    assert len(only(plan("compare: [{effect: k}]", grid=grid)).cells) == 6


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{effect: [unit, kk]}", "no point of the sweep uses a setting kk"),
        ("{effect: [context, k]}", "context may mean model.context or routing.context; write which"),
        ("{effect: [k, routing.k]}", "names routing.k twice"),
        ("{effect: [unit, unit]}", "one setting .* or a list of two different ones"),
        ("{effect: [unit, k, num_experts]}", "one setting .* or a list of two different ones"),
        ("{effect: []}", "one setting .* or a list of two different ones"),
        ("{effect: 3}", "one setting .* or a list of two different ones"),
        ("{effect: run.seed}", "seeds are what is averaged over"),
        ("{effect: k, where: [1]}", "where must map override keys"),
        ("{effect: k, where: {run.seed: 1}}", "where must map override keys"),
        ("{effect: k, where: {routing.kk: 1}}", "unknown key routing.kk"),
        ("{effect: k, where: {routing: dense}}", "no point of the sweep uses all of these settings and matches where"),
        ("{effect: scope}", "routing.scope: layer"),
        ("{effect: [unit, routing.context]}", "no points that agree in routing.num_experts, routing.k cross them"),
        ("{effect: k, at: flops}", "an entry of compare must be"),
        ("{effect: k, pair: [{routing: dense}, {routing: dense}]}", "an entry of compare must be"),
        ("{effect: k}, {effect: k}", "effect of k twice; write it once"),
        ("{pair: [{routing: token_top1, routing.num_experts: 4}, {routing: dense}], at: time}", "at must be one of"),
        ("{pair: [{routing: token_top1, routing.num_experts: 4}, {routing: dense}], at: []}", "at must be one of"),
        ("{pair: [{routing: token_top1, routing.num_experts: 4}, {routing: dense}], at: [flops, flops]}", "at must be"),
        ("{pair: [{routing: token_top1}, {routing: dense}], at: flops}", "matches 2 points of the sweep; add"),
        ("{pair: [{routing: dense, routing.ffn_multiplier: 2}, {routing: dense}], at: flops}", "one of the points of"),
    ],
)
def test_what_the_points_cannot_answer_is_one_sentence_when_the_sweep_is_planned(plan, entry, said):
    with pytest.raises(ConfigError, match=said):
        plan(f"compare: [{entry}]", grid=GRID.replace("[0, 1]", "[0]"))


def test_at_equal_cost_the_second_side_is_all_points_that_it_matches(plan):
    made = plan(
        "compare: [{pair: [{routing: token_top1, routing.num_experts: 4}, {routing: dense}], at: [flops, seconds]},"
        " [{routing: token_top1, routing.num_experts: 4}, {routing: dense, routing.ffn_multiplier: 1}]]"
    )
    assert [asked.at for asked in made.comparisons] == ["flops", "seconds", ""]
    assert [len(asked.right_runs) for asked in made.comparisons] == [6, 6, 2]
    assert all(len(asked.left_runs) == 2 for asked in made.comparisons)


def test_the_plan_lists_effects_and_costs_beside_the_pairs(plan):
    made = plan(
        "compare: [{effect: [unit, k], why: Both}, "
        "{pair: [{routing: token_top1, routing.num_experts: 4}, {routing: dense}], at: flops}]"
    )
    lines = list(plan_lines(made))
    assert "2 comparison(s), tested as one family; all others are described without a verdict:" in lines
    assert any("at equal flops against" in line and "routing=dense" in line for line in lines)
    assert any("effect of unit x k" in line and "token, sequence x 1, 2" in line and "Both" in line for line in lines)
    plain = json.loads(json.dumps(as_plain(made)))
    assert plain["effects"][0]["effect"] == "effect of unit x k" and plain["comparisons"][0]["at"] == "flops"


def test_a_launch_records_effects_and_more_seeds_add_to_their_cells(plan, tmp_path):
    made = plan("compare: [{effect: k}]")
    made.record_members()
    assert read_members(tmp_path / "runs", "mine").effects == list(made.effects)
    plan("compare: [{effect: k}]", "run.seed=7").record_members()
    (effect,) = read_members(tmp_path / "runs", "mine").effects
    assert all(len(cell.runs) == 3 for cell in effect.cells)


def test_an_effect_that_is_added_when_its_runs_are_done_is_late_and_stays_so(plan, tmp_path):
    made = plan("compare: [{effect: k}]")
    made.record_members()
    for run in made.runs:
        folder = RunFolder.of(run.config)
        with folder.claim(run.config):
            folder.start(1)
            folder.finish({})
    for _ in range(2):
        plan("compare: [{effect: k}, {effect: [unit, k]}]").record_members()
        assert [effect.late for effect in read_members(tmp_path / "runs", "mine").effects] == [False, True]


def test_a_command_line_that_moves_the_points_loses_effects_and_says_so(plan):
    moved = plan("compare: [{effect: num_experts}]", "routing.num_experts=4")
    assert not moved.effects
    assert [line for line in moved.warnings() if line.startswith("not compared under this command line: compare: ")]


def test_lists_of_older_versions_have_no_effects(tmp_path):
    record_launch(tmp_path, "old", Launch(runs=("a",)))
    path = tmp_path / ".sweeps" / "old.json"
    plain = json.loads(path.read_text())
    for launch in plain["launches"]:
        del launch["effects"]
        launch["comparisons"] = [
            {"left": "x", "right": "y", "left_runs": ["a"], "right_runs": [], "why": "", "late": False}
        ]
    path.write_text(json.dumps(plain))
    members = read_members(tmp_path, "old")
    assert members.effects == [] and members.comparisons[0].at == ""
