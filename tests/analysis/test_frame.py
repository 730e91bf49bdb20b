import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from moe_study.analysis import frame as frames
from moe_study.analysis.frame import load_frame
from moe_study.errors import DataError, StudyError
from moe_study.runs.members import Launch, record_launch
from tests.analysis import planted


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return planted.plant(tmp_path_factory.mktemp("once"))


@pytest.fixture
def folders(tmp_path, once):
    """The same for each test, to change as it likes."""
    return [Path(shutil.copytree(folder, tmp_path / "runs" / folder.name)) for folder in once]


def row_of(frame, folder):
    return frame[frame["key"] == folder.name].iloc[0]


def test_one_row_per_run_with_what_its_files_say(tmp_path, folders):
    frame = load_frame([tmp_path / "runs"])
    assert len(frame) == len(folders) == 12
    row = row_of(frame, folders[6])  # token top-2, seed 0
    result = json.loads((folders[6] / "result.json").read_text())
    assert row["label"] == "token top-2" and row["seed"] == 0 and row["state"] == "done"
    assert row["validation_loss"] == result["validation_loss"]
    assert row["num_active_params"] == result["num_active_params"]
    assert row["routing.k"] == 2 and row["routing.gate"] == "pick_then_softmax" and row["model.width"] == 96
    assert row["executed_per_token"] == 2.0
    assert np.isnan(row_of(frame, folders[0])["executed_per_token"])  # dense


def test_seeds_of_one_point_share_its_hash_and_label(tmp_path, folders):
    frame = load_frame(folders)
    assert frame.groupby("point")["seed"].apply(sorted).tolist() == [[0, 1]] * 6
    assert frame.groupby("point")["label"].nunique().eq(1).all()


def test_leaks_is_derived_from_the_causality_of_the_result(folders):
    frame = load_frame(folders)
    assert frame[frame["leaks"].astype(bool)]["label"].unique().tolist() == ["sequence top-2"]


def test_others_future_is_a_leak_and_mixing_the_batch_alone_is_none(folders):
    for folder, causality in zip(
        folders[:2], ({"others_future": True, "mixes_batch": True}, {"mixes_batch": True}), strict=True
    ):
        change_result(folder, causality={"own_future": False, "others_future": False, **causality})
    frame = load_frame(folders)
    assert row_of(frame, folders[0])["leaks"] and not row_of(frame, folders[1])["leaks"]


def test_a_leak_that_was_measured_and_not_declared_carries_the_mark(folders):
    causal = {"own_future": False, "others_future": False, "mixes_batch": False}
    change_result(folders[0], causality=causal, causality_measured={**causal, "own_future": True})
    change_result(folders[1], causality=causal, causality_measured=causal)
    frame = load_frame(folders)
    assert row_of(frame, folders[0])["leaks"] and not row_of(frame, folders[1])["leaks"]


def test_runs_that_are_not_done_keep_their_rows_and_reasons(folders):
    error = {"type": "ValueError", "message": "the reason\nadvice of a library", "traceback": ""}
    planted.set_status(folders[0], "failed", error, 7)
    planted.set_status(folders[1], "running", step=30)
    frame = load_frame(folders)
    failed, running = row_of(frame, folders[0]), row_of(frame, folders[1])
    assert (failed["state"], failed["step"], failed["error"]) == ("failed", 7, "ValueError: the reason")
    assert running["state"] == "stale"  # no process holds it
    assert set(frames.not_done(frame)["key"]) == {folders[0].name, folders[1].name}
    assert len(frames.done(frame)) == 10


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "result.json"])
@pytest.mark.parametrize("content", ['{"half": ', "[1, 2]", "\x00\x01", "", "{}"])
def test_a_damaged_file_is_one_sentence_that_names_it_and_costs_only_its_run(folders, name, content):
    (folders[3] / name).write_text(content)
    frame = load_frame(folders)
    row = row_of(frame, folders[3])
    assert row["state"] == "damaged"
    assert str(folders[3]) in row["error"] and "\n" not in row["error"]
    assert len(frames.done(frame)) == 11


def test_a_result_that_is_missing_or_of_another_run_is_not_believed(folders):
    (folders[0] / "result.json").unlink()
    shutil.copy(folders[2] / "result.json", folders[1] / "result.json")
    frame = load_frame(folders)
    assert row_of(frame, folders[0])["state"] == "stale"
    assert f"belongs to the run {folders[2].name}" in row_of(frame, folders[1])["error"]


def test_a_result_without_a_loss_is_not_believed(folders):
    change_result(folders[0], validation_loss=None)
    assert "has no validation_loss" in row_of(load_frame(folders), folders[0])["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("validation_loss", float("nan")), ("validation_loss", "3.2"), ("num_params", [1]), ("train_seconds", True)],
)
def test_what_is_no_number_costs_only_its_run_and_the_advice_works(folders, name, value):
    change_result(folders[0], **{name: value})
    row = row_of(load_frame(folders), folders[0])
    assert row["state"] == "damaged"
    assert f"its {name} is {value!r}; remove the run (moe-study remove {folders[0]} --results)" in row["error"]
    assert len(frames.done(load_frame(folders))) == 11


@pytest.mark.parametrize(
    "wrong", ["x", 3, ["de"], {"de": 4.1}, {"de": {"loss": 4.1}}, {"de": {"loss": None, "tokens": 5}}, {"de": {}}]
)
def test_losses_by_domain_of_another_form_are_said_or_collected(folders, wrong):
    change_result(folders[0], by_language=wrong)
    frame, problems = load_frame(folders), []
    assert set(frames.domain_losses(frame, problems)["key"]) == {folder.name for folder in folders[1:]}
    assert len(problems) == 1 and f"{folders[0]}/result.json is damaged: its losses by domain" in problems[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("routing.soft.chunk_length", []), ("routing.capacity.factor", "x"), ("routing.k", "x"), ("routing.layers", "x")],
)
def test_a_setting_of_another_kind_keeps_its_run_under_a_label_of_its_own(folders, name, value):
    """As a later version may have written it."""
    change_config(folders[4], name, value)
    frame = load_frame(folders[4:6])
    assert len(frames.done(frame)) == 2 and frame["label"].nunique() == 2


@pytest.mark.parametrize(
    ("name", "value"), [("run.seed", "x"), ("run.batch_size", None), ("run.eval_tokens", [1]), ("model.context", 2.5)]
)
def test_a_count_that_is_none_costs_only_its_run(folders, name, value):
    change_config(folders[4], name, value)
    frame = load_frame(folders[4:6])
    row = row_of(frame, folders[4])
    assert row["state"] == "damaged" and "config.yaml is damaged" in row["error"] and "\n" not in row["error"]
    assert len(frames.done(frame)) == 1


def change_config(folder, name, value):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    *sections, last = name.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[last] = value
    path.write_text(yaml.safe_dump(config))


def test_a_file_of_another_user_costs_only_its_run(folders, monkeypatch):
    def exists(path):
        if path.parent == folders[0]:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os.path.lexists(path)

    monkeypatch.setattr(Path, "exists", exists)
    row = row_of(load_frame([folders[0].parent]), folders[0])
    assert (row["state"], row["error"].split(": ")[-1]) == ("damaged", "Permission denied")


def test_a_run_from_before_a_setting_existed_pairs_with_those_that_have_the_value_it_was_trained_with(folders):
    path = folders[6] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["run"]["dispatch"], config["task"]
    path.write_text(yaml.safe_dump(config))
    frame = load_frame(folders)
    assert row_of(frame, folders[6])["point"] == row_of(frame, folders[7])["point"]
    assert frame["label"].nunique() == 6


def test_a_setting_that_every_version_wrote_is_not_made_up(folders):
    path = folders[6] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["routing"]["shuffle"]
    path.write_text(yaml.safe_dump(config))
    row = row_of(load_frame(folders), folders[6])
    assert row["state"] == "damaged" and "routing.shuffle is missing" in row["error"] and str(path) in row["error"]


def test_a_setting_of_a_later_version_costs_nothing_but_its_spelling(folders):
    path = folders[6] / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["routing"]["mood"] = "good"
    path.write_text(yaml.safe_dump(config))
    row = row_of(load_frame(folders), folders[6])
    assert row["state"] == "done" and row["routing.mood"] == "good" and row["key"] == row["identity"]


def test_a_run_trained_again_after_keys_have_moved_is_taken_once(tmp_path, folders):
    older = tmp_path / "runs" / ("0" * 16)
    shutil.copytree(folders[6], older)
    change_result(older, key=older.name, validation_loss=9.0)
    frame = load_frame([tmp_path / "runs"])
    assert len(frame) == 12 and row_of(frame, folders[6])["validation_loss"] < 9.0
    shutil.rmtree(folders[6])
    alone = row_of(load_frame([tmp_path / "runs"]), older)
    assert alone["validation_loss"] == 9.0 and alone["identity"] == folders[6].name


def test_a_key_in_two_folders_is_taken_once_and_done_first(tmp_path, folders):
    other = tmp_path / "other"
    shutil.copytree(folders[0].parent, other)
    planted.set_status(folders[0], "failed")
    frame = load_frame([folders[0].parent, other])
    assert len(frame) == 12 and row_of(frame, folders[0])["state"] == "done"


def test_a_sweep_is_its_members_and_those_never_started(tmp_path, folders):
    runs = folders[0].parent
    record_launch(runs, "mine", Launch(runs=(folders[0].name, folders[1].name, "0" * 16)))
    frame = load_frame([runs], sweep="mine")
    assert sorted(frame["state"]) == ["done", "done", "missing"]
    with pytest.raises(StudyError, match="no sweep yours"):
        load_frame([runs], sweep="yours")


def test_no_folder_and_no_runs_are_said(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        load_frame([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no runs in"):
        load_frame([tmp_path])


def test_losses_depend_on_what_they_were_measured_on(tmp_path, folders):
    planted.plant(tmp_path / "runs", seeds=(7,), fingerprint="other data")
    planted.plant(tmp_path / "runs", seeds=(8,), context=64)
    frame = load_frame([tmp_path / "runs"])
    assert frame.groupby("seed")["evaluation"].unique().map(len).eq(1).all()
    assert frame["evaluation"].nunique() == 3


def test_curves_are_the_lines_of_the_metrics(folders):
    frame = load_frame(folders)
    curves = frames.curves(frame)
    lines = [json.loads(line) for line in (folders[4] / "metrics.jsonl").read_text().splitlines()]
    for kind in ("train", "validation"):
        own = curves[(curves["key"] == folders[4].name) & (curves["kind"] == kind)]
        assert own["loss"].tolist() == [line["loss"] for line in lines if line["kind"] == kind]
    last = curves[curves["kind"] == "validation"].groupby("key")["loss"].last()
    assert last.to_dict() == dict(zip(frame["key"], frame["validation_loss"], strict=True))


def test_routing_history_has_a_row_for_each_expert_with_tokens(folders):
    history = frames.routing_history(load_frame(folders))
    own = history[history["key"] == folders[6].name]
    records = planted.STEPS // planted.EVERY + 1
    assert len(own) == records * 3 * 4
    assert np.allclose(own.groupby(["step", "layer"])["share"].sum(), 1)
    assert (own["tokens"] == own["step"] * planted.TOKENS_PER_STEP).all()
    assert folders[0].name not in set(history["key"])  # dense


def test_activations_and_domain_losses_are_those_of_the_files(folders):
    frame = load_frame(folders)
    counts = frames.activations(frame)
    own = counts[counts["key"] == folders[6].name]
    assert (own.groupby(["layer", "language", "topic"])["count"].sum() == 2 * own["tokens"].iloc[0]).all()
    losses = frames.domain_losses(frame)
    german = losses[(losses["key"] == folders[0].name) & (losses["name"] == "de")]
    assert german["loss"].tolist() == [row_of(frame, folders[0])["validation_loss"]]


def test_a_cut_off_last_line_is_ignored_and_a_damaged_one_is_said(folders):
    path = folders[0] / "metrics.jsonl"
    whole = len(frames.curves(load_frame(folders)))
    with open(path, "a") as handle:
        handle.write('{"kind": "train", "st')
    assert len(frames.curves(load_frame(folders))) == whole
    path.write_text('{"kind": "tr\n' + path.read_text())
    with pytest.raises(StudyError, match=r"metrics.jsonl is damaged"):
        frames.curves(load_frame(folders))


@pytest.mark.parametrize("content", [b"no parquet", b""])
def test_damaged_counts_are_said_or_collected(folders, content):
    (folders[6] / "routing.parquet").write_bytes(content)
    frame = load_frame(folders)
    with pytest.raises(DataError, match=r"routing.parquet is damaged"):
        frames.activations(frame)
    problems = []
    counts = frames.activations(frame, problems)
    assert len(problems) == 1 and str(folders[6]) in problems[0]
    assert folders[6].name not in set(counts["key"]) and folders[7].name in set(counts["key"])


def change_result(folder, **values):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", None), ("share", True), ("share", "2.0"), ("share", {"a": 1}), ("share", ["x"]), ("layer", None)],
)
def test_shares_of_another_kind_are_said_or_collected(folders, name, value):
    path, problems = folders[4] / "metrics.jsonl", []
    records = [json.loads(line) for line in path.read_text().splitlines()]
    first = next(record for record in records if record["kind"] == "routing")
    first[name] = value
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = frames.routing_history(load_frame(folders[4:6]), problems)
    assert set(found["key"]) == {folders[5].name}
    assert len(problems) == 1 and "metrics.jsonl is damaged: " in problems[0]
