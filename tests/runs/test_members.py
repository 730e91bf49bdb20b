"""Which runs belong to a sweep after launches of its file, and of its file with more on the command line."""

import json
import multiprocessing

import pytest

from moe_study.errors import StudyError
from moe_study.runs.members import (
    Launch,
    PlannedComparison,
    drop_added_runs,
    list_sweeps,
    read_members,
    record_launch,
)


def test_a_launch_with_more_on_the_command_line_adds_to_the_members(tmp_path):
    record_launch(tmp_path, "mine", Launch(runs=("a", "b")))
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("c",)))
    assert read_members(tmp_path, "mine").runs == ["a", "b", "c"]


def test_a_launch_replaces_what_the_same_command_line_meant_before(tmp_path):
    """Points that the file no longer names are not members any more; what was added stays."""
    record_launch(tmp_path, "mine", Launch(runs=("a", "b")))
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("c",)))
    record_launch(tmp_path, "mine", Launch(("++run.seed=5,6",), ("d",)))
    record_launch(tmp_path, "mine", Launch(runs=("b",)))
    assert sorted(read_members(tmp_path, "mine").runs) == ["b", "c", "d"]
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("e", "b")))
    assert sorted(read_members(tmp_path, "mine").runs) == ["b", "d", "e"]


def test_a_trial_with_other_settings_is_not_mixed_with_the_study(tmp_path):
    record_launch(tmp_path, "mine", Launch(("run.tokens=1000",), ("t",)))
    record_launch(tmp_path, "mine", Launch(runs=("a",)))
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("b",)))
    assert read_members(tmp_path, "mine").runs == ["a", "b"]
    record_launch(tmp_path, "mine", Launch(("run.seed=4", "run.tokens=1000"), ("u",)))
    assert read_members(tmp_path, "mine").runs == ["t", "u"]
    record_launch(tmp_path, "mine", Launch(runs=("a",)))
    assert sorted(read_members(tmp_path, "mine").runs) == ["a", "b"]


def test_comparisons_are_those_of_the_last_launch_with_the_runs_of_all(tmp_path):
    old = PlannedComparison("routing=a", "routing=b", ("x",), ("y",))
    kept = PlannedComparison("routing=a", "routing=c", ("x",), ("z",))
    record_launch(tmp_path, "mine", Launch(runs=("x", "y", "z"), comparisons=(old, kept)))
    more = PlannedComparison("routing=a", "routing=c", ("x4",), ("z4",))
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("x4", "z4"), (more,)))
    (asked,) = read_members(tmp_path, "mine").comparisons
    assert asked == PlannedComparison("routing=a", "routing=c", ("x", "x4"), ("z", "z4"))


def test_an_older_list_of_keys_is_a_launch_of_the_file_alone(tmp_path):
    path = record_launch(tmp_path, "mine", Launch())
    path.write_text(json.dumps(["a", "b"]))
    assert read_members(tmp_path, "mine").runs == ["a", "b"]
    assert read_members(tmp_path, "mine").comparisons == []
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("c",)))
    record_launch(tmp_path, "mine", Launch(runs=("a",)))
    assert sorted(read_members(tmp_path, "mine").runs) == ["a", "c"]


def test_sweeps_in_folders_are_listed_by_their_path(tmp_path):
    record_launch(tmp_path, "recipe/size", Launch(runs=("a",)))
    record_launch(tmp_path, "mine", Launch(runs=("b",)))
    assert list_sweeps(tmp_path) == ["mine", "recipe/size"]
    assert read_members(tmp_path, "recipe/size").runs == ["a"]
    assert list_sweeps(tmp_path / "nowhere") == []


def test_an_unknown_sweep_gets_the_names_of_those_that_were_launched(tmp_path):
    for name in ("init", "recipe/init"):
        record_launch(tmp_path, name, Launch(runs=(name,)))
    with pytest.raises(StudyError, match=r"no sweep recipe was .* \(init, recipe/init were\); run python train\.py -m"):
        read_members(tmp_path, "recipe")


@pytest.mark.parametrize("name", ["../out", "recipe/../../out", "/out", "..", ".", ""])
def test_no_sweep_s_name_leads_out_of_the_folder_of_members(tmp_path, name):
    for use in (lambda: record_launch(tmp_path / "runs", name, Launch()), lambda: read_members(tmp_path, name)):
        with pytest.raises(StudyError, match="is not the name of a sweep"):
            use()
    assert not list(tmp_path.iterdir())


def test_a_removed_run_leaves_the_sweep_unless_its_file_names_it(tmp_path):
    record_launch(tmp_path, "mine", Launch(runs=("a", "b")))
    record_launch(tmp_path, "mine", Launch(("run.seed=4",), ("c", "a"), (PlannedComparison("l", "r", ("c",), ("a",)),)))
    record_launch(tmp_path, "mine", Launch(("run.seed=5",), ("d",)))
    drop_added_runs(tmp_path, ["a", "c", "d"])
    members = read_members(tmp_path, "mine")
    assert members.runs == ["a", "b"]
    assert [launch.overrides for launch in members.launches] == [()]


def test_a_sweep_that_was_never_launched_or_a_damaged_list_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="no sweep yours was launched"):
        read_members(tmp_path, "yours")
    path = record_launch(tmp_path, "mine", Launch(runs=("a",)))
    for content in ('{"launches": [{"runs": "a"}]}', "{", '{"runs": ["a"]}', "3"):
        path.write_text(content)
        with pytest.raises(StudyError, match=r"mine\.json (is damaged|cannot be read)"):
            read_members(tmp_path, "mine")


def add(runs_dir, number):
    for repeat in range(5):
        record_launch(runs_dir, "mine", Launch((f"run.seed={number}{repeat}",), (f"{number}{repeat}",)))


def test_launches_at_the_same_time_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_members(tmp_path, "mine").runs) == 20
