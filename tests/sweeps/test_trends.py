"""`trend:` in compare: from two sides and a setting to the runs of every size, or to one sentence."""

import pytest

from moe_study.commands.plan import as_plain, plan_lines
from moe_study.errors import ConfigError
from moe_study.runs.members import Launch, read_members, record_launch
from moe_study.sweeps.claims import Expected
from moe_study.sweeps.sweep_file import claims_of

GRID = """
base: {recipe: pico}
seeds: [0, 1]
points:
  - {routing: [dense, token_top1, token_top2], model.width: [32, 16, 64], model.heads: 2}
  - {routing: sequence_top2, model.width: 16, model.heads: 2}
"""
TREND = "{trend: [{routing: token_top2}, {routing: dense}], over: width}"


def test_a_trend_has_the_runs_of_both_sides_at_every_size_in_order(plan):
    made = plan(f"margin: 0.02\ncompare: [{TREND}]")
    (trend,) = made.trends
    assert (trend.over, trend.by, trend.margin) == ("model.width", "active_params", 0.02)
    assert [rung.level for rung in trend.rungs] == ["16", "32", "64"]
    configs = {run.key: run.config for run in made.runs}
    for rung in trend.rungs:
        for keys, selection in ((rung.left_runs, "top_k"), (rung.right_runs, "dense")):
            own = [configs[key] for key in keys]
            assert {one.run.seed for one in own} == {0, 1} and len(own) == 2
            assert {(str(one.model.width), one.routing.selection.value) for one in own} == {(rung.level, selection)}


def test_only_sizes_that_both_sides_have_count(plan):
    text = "compare: [{trend: [{routing: token_top2}, {routing: [sequence_top2, token_top1]}], over: model.width}]"
    with pytest.raises(ConfigError, match=r"matches 2 points at model\.width=16; narrow it to one"):
        plan(text)
    with pytest.raises(ConfigError, match=r"its sides share 1 value\(s\) of model\.width, and a line needs 2"):
        plan("compare: [{trend: [{routing: token_top2}, {routing: sequence_top2}], over: model.width}]")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{trend: [{routing: token_top2}, {routing: dense}]}", "a trend needs over:"),
        ("{trend: [{routing: token_top2}, {routing: dense}], over: [a]}", "a trend needs over:"),
        ("{trend: [{routing: token_top2}, {routing: dense}], over: width, by: seconds}", "by must be one of active_pa"),
        ("{trend: [{routing: token_top2}], over: width}", "a comparison has two sides"),
        ("{trend: [{routing: token_top2, run.seed: 1}, {routing: dense}], over: width}", "leave run.seed out"),
        ("{trend: [{routing: token_top2}, {routing: dense}], over: seed}", "seeds are what is averaged over"),
        ("{trend: [{routing: token_top2}, {routing: dense}], over: breadth}", "no point of the sweep uses a setting b"),
        ("{trend: [{routing: token_top2}, {routing: dense}], over: width, at: flops}", "an entry of compare must be"),
        ("{trend: [{routing: dense}, {routing: dense}], over: width}", "both sides are the same point at model.width"),
        ("{trend: [{routing: dense}, {routing: none}], over: width}", "its sides share 0 value(s)"),
        (f"{TREND}, {TREND}", "twice; write it once"),
    ],
)
def test_mistakes_are_one_sentence(plan, entry, said):
    with pytest.raises(ConfigError) as caught:
        plan(f"compare: [{entry}]")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_plan_shows_trends_and_programs_get_them(plan):
    made = plan(f"compare: [{TREND}]")
    assert any("trend of routing=token_top2 against routing=dense over width" in line for line in plan_lines(made))
    assert as_plain(made)["trends"][0]["levels"] == ["16", "32", "64"]


def test_seeds_on_the_command_line_add_to_every_size_and_a_trial_is_never_mixed(plan, tmp_path):
    for more in ([], ["run.seed=2"]):
        plan(f"compare: [{TREND}]", *more).record_members()
    (trend,) = read_members(tmp_path / "runs", "mine").trends
    assert [(len(rung.left_runs), len(rung.right_runs)) for rung in trend.rungs] == [(3, 3)] * 3


def test_a_trend_that_was_asked_for_when_all_sizes_had_runs_is_late(plan, tmp_path):
    made = plan(f"compare: [{TREND}]")
    (trend,) = made.trends
    some = {key for rung in trend.rungs[:2] for key in (*rung.left_runs, *rung.right_runs)}
    for name, done, late in (("some", some, False), ("all", {run.key for run in made.runs}, True)):
        record_launch(tmp_path / "other", name, Launch(runs=tuple(done), trends=made.trends), done)
        (known,) = read_members(tmp_path / "other", name).trends
        assert known.late is late
        record_launch(
            tmp_path / "other", name, Launch(runs=tuple(done), trends=made.trends), {r.key for r in made.runs}
        )
        assert read_members(tmp_path / "other", name).trends[0].late is late  # it was asked before


def test_a_trend_can_be_claimed(tmp_path):
    claimed = TREND.replace("over: width", "over: width, why: 'Grows?', claim: it grows, expect: lower")
    (tmp_path / "mine.yaml").write_text(f"{GRID}compare: [{claimed}]")
    (claim,) = claims_of(str(tmp_path / "mine.yaml"), tmp_path).claims
    assert (claim.why, claim.says, claim.expect) == ("Grows?", "it grows", Expected.LOWER)
    assert claim.is_of("trend of routing=token_top2 against routing=dense over width by active_params")
