"""Grids become runs: each once, validated, with their state."""

import dataclasses
import re
from collections import defaultdict

import pytest

from moe_study.commands.plan import plan_lines
from moe_study.data import prepare
from moe_study.errors import ConfigError
from moe_study.launch.run_sweep import opening
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.members import read_members
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import PlannedRun, plan_command, plan_point
from tests.fixtures import write_tiny_corpus

SWEEPS = sorted(path.stem for path in (project_root() / "sweeps").glob("*.yaml"))


@pytest.fixture
def plan(composer, tmp_path):
    def make(*arguments: str):
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        return plan_command(composer, [*arguments, f"log.runs_dir={tmp_path / 'runs'}"], tmp_path)

    return make


@pytest.fixture
def sweep_file(tmp_path):
    def write(text: str) -> None:
        (tmp_path / "sweeps").mkdir(exist_ok=True)
        (tmp_path / "sweeps" / "mine.yaml").write_text(text)

    return write


def set_state(run: PlannedRun, state: State) -> None:
    folder = RunFolder.of(run.config)
    with folder.claim(run.config):
        folder.start(run.config.total_steps)
        match state:
            case State.DONE:
                folder.finish({})
            case State.FAILED:
                folder.fail("first line\nlast line")
            case State.DIVERGED:
                folder.diverge("not finite at step 3", 3)
            case State.PREEMPTED:
                folder.preempt(2)


def test_points_that_mean_the_same_run_are_planned_once(plan, sweep_file):
    sweep_file("points: [{routing: token_top1}, {routing: token_top1, routing.k: 1}, {routing: token_top2}]")
    made = plan("+sweep=mine")
    assert (len(made.runs), made.duplicates) == (2, 1)
    assert len({run.key for run in made.runs}) == 2


def test_points_that_differ_in_what_they_cannot_use_are_one_network_and_the_plan_says_so(plan):
    made = plan("routing=dense,token_hash", "routing.k=1,2", "routing.gate=sigmoid,softmax_then_pick", "run.seed=0,1")
    assert (len(made.runs), made.duplicates) == (2 * 3, 10)
    lines = list(plan_lines(made))
    place = lines.index(
        "4 points are one dense network: routing.k and routing.gate have no effect on a dense model"
    )
    assert lines[place + 1 : place + 3] == [
        "  routing=dense routing.k=1 routing.gate=sigmoid",
        "  routing=dense routing.k=1 routing.gate=softmax_then_pick",
    ]
    assert lines.count("2 points are one network: routing.gate has no effect without a router with scores") == 2
    assert opening(made, []).count("points are one") == 3


def test_one_network_in_two_spellings_is_planned_once(plan, sweep_file):
    sweep_file("""
        base: {run.tokens: 100_000}
        points:
          - {routing: dense, routing.ffn_multiplier: 2}
          - {routing: dense, routing.expert_size: 768}
          - {routing: dense, model.ffn_size: 768}
          - {routing: dense, run.tokens: null, run.steps: 98, routing.ffn_multiplier: 2}
    """)
    made = plan("+sweep=mine")
    (same,) = made.same_points()
    assert len(made.runs) == 1 and len(same.points) == 4
    assert same.headline == "4 points are one dense network"


def test_a_twin_that_several_points_have_is_said_with_their_sizes(plan):
    made = plan("routing.num_experts=4", "routing.k=1", "match=total_params", "routing.threshold=0.5,0.9")
    (run,) = made.runs
    (same,) = made.same_points()
    assert run.matched is not None and same.network == "dense network"


def test_a_setting_that_a_single_run_cannot_use_is_named(plan):
    assert plan("routing=dense", "routing.k=2").warnings() == ["routing.k has no effect on a dense model"]
    assert plan("routing.k=2").warnings() == []
    assert plan("routing=dense", "routing.k=2", "run.seed=0,1").warnings() == []  # a sweep says what is the same


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("{optimizer.lr: 1e-3}", 2),  # of 1e-3 and 2e-3
        ("{model.ffn_size: 384}", 0),  # null is 4 * width
        ("{model.ffn_size: null}", 0),
        ("{run.micro_batch: 8}", 0),
        ("{run.tokens: 500_000}", 0),
        ("{routing.expert_size: 384}", 0),
        ("{routing.num_experts: 4}", 2),  # a dense model has none
        ("{routing.threshold: 0.9}", 4),  # which nobody uses, and nobody gave
        ("{routing.selection: dense, optimizer.lr: 0.002}", 3),
    ],
)
def test_excludes_match_what_is_meant(plan, sweep_file, exclude, left):
    sweep_file(f"points: [{{routing: [dense, token_top1], optimizer.lr: [0.001, 2e-3]}}]\nexclude: [{exclude}]")
    made = plan("+sweep=mine")
    assert len(made.runs) == left and made.excluded == 4 - left


def test_an_exclude_of_a_setting_without_effect_matches_where_it_is_given(plan, sweep_file):
    sweep_file("""
        points: [{routing: [dense, token_top2], routing.k: [2, 3]}]
        exclude: [{routing: dense, routing.k: 3}]
    """)
    made = plan("+sweep=mine")
    assert (len(made.runs), made.excluded, made.duplicates, made.idle_excludes) == (3, 1, 0, ())


@pytest.mark.parametrize("setting", ["data.options.path", "data.root"])
def test_points_that_differ_only_in_where_their_data_lies_are_refused_unless_it_is_the_same(plan, tmp_path, setting):
    places = [tmp_path / "one", tmp_path / "other"]
    texts = {place: place / "texts" for place in places}
    for folder in texts.values():
        write_tiny_corpus(folder)
    common = ["data=local_files", "data.tokenizer.kind=bytes", f"data.root={tmp_path}/data"]
    first, second = texts.values() if setting == "data.options.path" else places
    if setting == "data.root":
        common = [*common[:2], f"data.options.path={texts[places[0]]}"]
    with pytest.raises(ConfigError, match=rf"points differ in {setting} alone.*give each of them a data\.name"):
        plan(*common, f"{setting}={first},{second}")
    for place in (first, second):
        prepare(plan(*common, f"{setting}={place}").runs[0].config.data, progress=False)
    made = plan(*common, f"{setting}={first},{second}")
    assert (len(made.runs), made.duplicates) == (1, 1)
    assert len(plan(*common, f"{setting}={first}", "data.name=a,b").runs) == 2


def test_keys_differ_by_seed(plan):
    made = plan("run.seed=0,1,2,1")
    assert len({run.key for run in made.runs}) == 3


def test_invalid_points_are_listed_together_with_their_reason_and_stop_the_sweep(plan, sweep_file):
    sweep_file("seeds: [0, 1]\npoints: [{routing: token_top2, routing.num_experts: [1, 2]}]")
    made = plan("+sweep=mine")
    assert (len(made.runs), len(made.invalid)) == (2, 2)
    with pytest.raises(ConfigError) as caught:
        made.check()
    said = str(caught.value)
    assert said.startswith("2 of 4 points are invalid")
    assert said.count("cannot be picked from N=1") == 1
    assert "routing.num_experts=1 run.seed=1" in said
    assert "log.runs_dir" not in said  # what all points share tells nothing


@pytest.mark.parametrize("where", ["file", "command"])
def test_invalid_points_are_skipped_on_request(plan, sweep_file, where):
    sweep_file(
        "points: [{routing: token_top2, routing.num_experts: [1, 2]}]\n"
        + ("skip_invalid: true" if where == "file" else "")
    )
    made = plan("+sweep=mine", *(["skip_invalid=true"] if where == "command" else []))
    made.check()
    assert len(made.to_start()) == 1


def test_plan_of_nothing_is_refused_even_when_skipping(plan, sweep_file):
    sweep_file("points: [{routing: token_top2, routing.num_experts: 1}]\nskip_invalid: true")
    with pytest.raises(ConfigError, match="no runs"):
        plan("+sweep=mine").check()


def test_misspelt_key_stops_at_once_even_when_skipping(plan, sweep_file):
    sweep_file("points: [{routing.numexperts: [1, 2]}]\nskip_invalid: true")
    with pytest.raises(Exception, match="numexperts"):
        plan("+sweep=mine")


def test_excluded_points_are_counted_and_need_not_be_valid(plan, sweep_file):
    sweep_file("""
        points: [{routing: [token_top1, token_top2], routing.num_experts: [1, 2]}]
        exclude: [{routing: token_top2, routing.num_experts: 1}]
    """)
    made = plan("+sweep=mine")
    assert (len(made.runs), made.excluded, made.invalid) == (3, 1, ())


def test_an_exclude_that_matches_no_point_is_named(plan, sweep_file):
    sweep_file("""
        points: [{routing: [token_top1, token_top2, expert_choice]}]
        exclude: [{routing: token_top1}, {routing: token_top3, routing.k: 2}, {routing.selection: top_k}]
    """)
    made = plan("+sweep=mine")
    assert made.excluded == 2
    assert made.warnings() == ["exclude: {routing:token_top3,routing.k:2} matches no point of the sweep"]


def test_states_decide_what_starts(plan):
    runs = plan("run.seed=0,1,2,3,4").runs
    for run, state in zip(runs, (State.DONE, State.FAILED, State.DIVERGED, State.PREEMPTED), strict=False):
        set_state(run, state)
    made = plan("run.seed=0,1,2,3,4")
    assert [run.state for run in made.runs] == [
        State.DONE, State.FAILED, State.DIVERGED, State.PREEMPTED, State.MISSING,
    ]  # fmt: skip
    assert made.runs[1].reason == "first line"
    assert {run.state for run in made.to_start()} == {State.PREEMPTED, State.MISSING}
    assert len(made.to_start(retry_failed=True)) == 4


def test_run_that_lost_its_process_is_started_again(plan):
    (run,) = plan().runs
    folder = RunFolder.of(run.config)
    with folder.claim(run.config):
        folder.start(5)
        assert plan().to_start() == []  # it runs
    assert [run.state for run in plan().to_start()] == [State.STALE]


def test_longest_run_starts_first(plan):
    made = plan("model=nano,micro", "run.seed=0,1")
    flops = [run.train_flops for run in made.to_start()]
    assert flops == sorted(flops, reverse=True)
    assert made.to_start()[0].config.model.layers == 4


def test_runs_know_their_sweep_without_changing_identity(plan, sweep_file, tmp_path):
    sweep_file("seeds: [0, 1]")
    made = plan("+sweep=mine")
    assert {run.config.log.sweep for run in made.runs} == {"mine"}
    assert [run.key for run in made.runs] == [run.key for run in plan("run.seed=0,1").runs]
    made.record_members()
    assert read_members(tmp_path / "runs", "mine").runs == [run.key for run in made.runs]


def test_seeds_from_the_command_line_join_the_members_and_points_out_of_the_file_leave(plan, sweep_file, tmp_path):
    sweep_file("{seeds: [0], points: [{routing: [dense, token_top1]}]}")
    first = plan("+sweep=mine", "log.log_every=5", "data.root=/elsewhere")  # neither makes another run
    first.record_members()
    more = plan("+sweep=mine", "run.seed=4,5")
    more.record_members()
    sweep_file("{seeds: [0], points: [{routing: dense}]}")
    plan("+sweep=mine").record_members()
    expected = {first.runs[0].key, *(run.key for run in more.runs)}
    assert set(read_members(tmp_path / "runs", "mine").runs) == expected
    assert len(expected) == 5


def test_plan_point_refuses_what_has_no_meaning(composer):
    assert plan_point(composer, ["run.seed=3"]).runs[0].config.run.seed == 3
    with pytest.raises(ConfigError, match="N=4"):
        plan_point(composer, ["routing.k=5"])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_committed_sweep_plans_without_an_invalid_point(composer, name):
    made = plan_command(composer, [f"+sweep={name}"], project_root())
    made.check()
    assert made.invalid == ()
    seeds_of = defaultdict(set)
    for run in made.runs:
        point = dataclasses.replace(run.config, run=dataclasses.replace(run.config.run, seed=0))
        seeds_of[point.key].add(run.config.run.seed)
    every = set().union(*seeds_of.values())
    assert len(every) >= 2
    assert all(seeds == every for seeds in seeds_of.values())  # paired
    header = (project_root() / "sweeps" / f"{name}.yaml").read_text()
    assert header.startswith("#")
    assert f"python train.py -m +sweep={name}" in header


def test_settings_of_a_command_change_no_key_and_are_read_before_anything_starts(plan, sweep_file):
    sweep_file("points: [{routing: [token_top1, dense]}]")
    plain = plan("+sweep=mine")
    told = plan("+sweep=mine", "cluster=example", "cluster.partition=long", "job.runs=3", "retry_failed=true")
    assert [run.key for run in told.runs] == [run.key for run in plain.runs]
    assert told.added == ()
    for mistake, said in (
        ("cluster=exmaple", "cluster=exmaple is unknown; did you mean cluster=example?"),
        ("cluster.partiton=a", "unknown key cluster.partiton; did you mean cluster.partition?"),
        ("job.worker=3", "unknown key job.worker; did you mean job.workers?"),
        ("cluster=none,example", "cluster=none,example lists several values, and a command has one"),
        ("job.runs=1,2", "job.runs=1,2 lists several values"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            plan("+sweep=mine", mistake)


@pytest.mark.parametrize("key", ["cluster", "cluster.partition", "job.runs", "retry_failed", "hydra/launcher"])
def test_a_sweep_file_has_no_settings_of_the_command(plan, sweep_file, key):
    for text in (f"base: {{{key}: 1}}", f"points: [{{routing: dense, {key}: [1, 2]}}]"):
        sweep_file(text)
        with pytest.raises(ConfigError, match=f"mine.yaml: {key} is a setting of the command, not of its runs"):
            plan("+sweep=mine")
