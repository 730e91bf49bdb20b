"""`reach:` in compare: from the points of a curve and one to be reached to their runs, or to one sentence."""

import json

import pytest

from moe_study.commands.plan import as_plain, plan_lines
from moe_study.errors import ConfigError
from moe_study.runs.members import Launch, drop_added_runs, read_members, record_launch
from moe_study.sweeps.sweep_file import claims_of

GRID = """
base: {recipe: pico}
seeds: [0, 1]
points:
  - {routing: token_top2, routing.num_experts: [4, 8]}
  - {routing: [token_top1, dense]}
"""
REACH = "{reach: [{routing: token_top2}, {routing: token_top1}], by: expert_flops}"


def settings_of(made, keys):
    configs = {run.key: run.config for run in made.runs}
    routings = [configs[key].routing for key in keys]
    return {(one.selection.value, one.k, one.num_experts) for one in routings}


def test_a_reach_has_the_runs_of_the_curve_and_of_the_point(plan):
    made = plan(f"compare: [{REACH}]")
    (reach,) = made.reaches
    assert reach.by == "expert_flops" and reach.at_most is None
    assert settings_of(made, reach.curve_runs) == {("top_k", 2, 4), ("top_k", 2, 8)} and len(reach.curve_runs) == 4
    assert settings_of(made, reach.point_runs) == {("top_k", 1, 4)} and len(reach.point_runs) == 2
    assert made.comparisons == () and made.trends == ()


def test_several_costs_are_several_requests_and_a_list_of_sides_is_all_of_them(plan):
    made = plan(
        "compare: [{reach: [[{routing: token_top1}, {routing: token_top2, routing.num_experts: 8}], {routing: dense}], "
        "by: [ffn_flops, seconds], why: 'How much?', at_most: 2, claim: twice as much}]"
    )
    assert [one.by for one in made.reaches] == ["ffn_flops", "seconds"]
    assert len({one.text for one in made.reaches}) == 2
    for one in made.reaches:
        assert settings_of(made, one.curve_runs) == {("top_k", 1, 4), ("top_k", 2, 8)}
        assert (one.why, one.at_most) == ("How much?", 2.0)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{reach: [{routing: token_top2}, {routing: dense}]}", "reach needs by: (the costs that are meant)"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: null}", "by must be one of total_params, "),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: price}", "or a list of different ones, not 'price'"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: [flops, flops]}", "or a list of different ones, not"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: []}", "or a list of different ones, not []"),
        ("{reach: [{routing: token_top2}], by: flops}", "reach has two sides"),
        ("{reach: [[], {routing: dense}], by: flops}", "reach has two sides"),
        ("{reach: [{routing: token_top2}, [{routing: dense}]], by: flops}", "reach has two sides"),
        ("{reach: {routing: token_top2}, by: flops}", "reach has two sides"),
        ("{reach: [{routing: token_top2, run.seed: 1}, {routing: dense}], by: flops}", "leave run.seed out"),
        ("{reach: [{routing: token_top1}, {routing: dense}], by: flops}", "matches one point of the sweep, and a "),
        ("{reach: [{routing: token_top2}, {routing: none}], by: flops}", "{routing: none} matches no point"),
        ("{reach: [{routing: [token_top1, token_top2]}, {routing: token_top1}], by: flops}", "narrow the first side"),
        ("{reach: [{routing: [token_top1, dense]}, {routing: token_top2}], by: flops}", "matches 2 points of the"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, margin: 0.1}", "an entry of compare must be"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, at: flops}", "an entry of compare must be"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, at_most: 0}", "at_most must be a share"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, at_most: true}", "at_most must be a share"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, at_most: half}", "at_most must be a share"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, at_most: 0.5}", "claim and at_most go"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, claim: half}", "claim and at_most go"),
        ("{reach: [{routing: token_top2}, {routing: dense}], by: flops, expect: lower}", "expect is of a comparison"),
        (f"{REACH}, {{reach: [{{routing: token_top2}}, {{routing: token_top1}}], by: [flops, expert_flops]}}", "twice"),
        ("[{routing: token_top1}, {routing: dense}], [{routing: dense}, {routing: token_top1}]", "twice; write it"),
        (
            "{pair: [{routing: token_top1}, {routing: token_top2}], at: [flops, seconds]}, "
            "{pair: [{routing: token_top1}, {routing: token_top2}], at: flops}",
            "twice; write it once",
        ),
    ],
)
def test_mistakes_are_one_sentence(plan, entry, said):
    with pytest.raises(ConfigError) as caught:
        plan(f"compare: [{entry}]")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_plan_says_that_it_is_not_tested_and_programs_get_it(plan):
    made = plan(f"compare: [[{{routing: token_top2, routing.num_experts: 4}}, {{routing: dense}}], {REACH}]")
    lines = list(plan_lines(made))
    assert any(line.startswith("1 comparison(s), tested;") for line in lines)
    assert "1 cost(s) at equal loss, described and not tested:" in lines
    assert as_plain(made)["reaches"] == [
        {
            "reach": "the cost of routing=token_top2 to reach routing=token_top1 by expert_flops",
            "at_most": None,
            "why": "",
        }
    ]


def test_seeds_on_the_command_line_add_to_both_sides_and_can_be_taken_back(plan, tmp_path):
    for more in ([], ["run.seed=2"]):
        plan(f"compare: [{REACH}]", *more).record_members()
    (reach,) = read_members(tmp_path / "runs", "mine").reaches
    assert (len(reach.curve_runs), len(reach.point_runs)) == (6, 3)
    added = read_members(tmp_path / "runs", "mine").launches[-1].runs
    drop_added_runs(tmp_path / "runs", added)
    (reach,) = read_members(tmp_path / "runs", "mine").reaches
    assert (len(reach.curve_runs), len(reach.point_runs)) == (4, 2)


def test_what_is_asked_when_both_sides_have_runs_is_late_and_what_was_asked_before_stays_as_it_was(plan, tmp_path):
    made = plan(f"compare: [{REACH}]")
    (reach,) = made.reaches
    everything = set(reach.curve_runs) | set(reach.point_runs)
    for name, done, late in (("none", (), False), ("point", reach.point_runs, False), ("both", everything, True)):
        record_launch(tmp_path / "other", name, Launch(reaches=made.reaches), set(done))
        assert read_members(tmp_path / "other", name).reaches[0].late is late
        record_launch(tmp_path / "other", name, Launch(reaches=made.reaches), everything)
        assert read_members(tmp_path / "other", name).reaches[0].late is late
    other_cost = plan(f"compare: [{REACH.replace('expert_flops', 'flops')}]").reaches
    record_launch(tmp_path / "other", "none", Launch(reaches=(*made.reaches, *other_cost)), everything)
    assert [one.late for one in read_members(tmp_path / "other", "none").reaches] == [False, True]


def test_the_file_of_a_sweep_without_any_is_as_older_versions_read_it(plan, tmp_path):
    for text, there in (("", False), (f"compare: [{REACH}]", True)):
        plan(text).record_members()
        (launch,) = json.loads((tmp_path / "runs" / ".sweeps" / "mine.json").read_text())["launches"]
        assert ("reaches" in launch) is there


def test_a_reach_can_be_claimed_and_is_no_claim_of_a_test(tmp_path):
    claimed = REACH.replace("by: expert_flops", "by: [expert_flops, flops], why: 'Half?', claim: half, at_most: 0.5")
    pair = "{pair: [{routing: token_top1}, {routing: dense}], claim: it is, expect: lower}"
    (tmp_path / "mine.yaml").write_text(f"{GRID}compare: [{pair}, {claimed}]")
    claims = claims_of(str(tmp_path / "mine.yaml"), tmp_path)
    assert [claim.says for claim in claims.claims] == ["it is"]
    assert [(claim.why, claim.says, claim.expect) for claim in claims.reaches] == [("Half?", "half", None)] * 2
    text = "the cost of routing=token_top2 to reach routing=token_top1 by flops"
    assert [claim.is_of(text) for claim in claims.reaches] == [False, True]
