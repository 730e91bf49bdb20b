"""A study's files as a wandb artifact: what is sent, what is kept to be sent later, what is said when it fails."""

import json
import sys
import types
from pathlib import Path

import pytest

from moe_study.analysis.publish import publish
from moe_study.cli import main
from moe_study.errors import StudyError
from tests.analysis import planted
from tests.wandb_files import records


class FakeArtifact:
    def __init__(self, name, type, metadata):
        self.name, self.type, self.metadata, self.files, self.entries = name, type, metadata, {}, {}

    def add_file(self, path, name):
        self.files[name] = Path(path).read_bytes()
        self.entries[name] = types.SimpleNamespace(local_path=str(Path(path).resolve()))
        return self.entries[name]


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the library that notes what it is given."""
    module = types.ModuleType("wandb")
    module.kept, module.finished = [], 0

    def init(**settings):
        module.settings = settings
        return types.SimpleNamespace(log_artifact=module.kept.append, finish=lambda: None)

    module.init, module.Settings, module.Artifact = init, dict, FakeArtifact
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def files(tmp_path):
    """Two files, one in a folder of its own."""
    (tmp_path / "out" / "part").mkdir(parents=True)
    found = [tmp_path / "out" / name for name in ("table.csv", "part/table.csv")]
    for number, file in enumerate(found):
        file.write_text(f"x\n{number}\n")
    return found


def send(files, **changes):
    wish = {"name": "recipe/init", "kind": "tables", "mode": "offline", "project": "mine", "facts": {"runs": ["a"]}}
    return publish(files, files[0].parent, **(wish | changes))


def test_an_artifact_holds_the_files_by_their_places(files, wandb):
    assert send(files) == "recipe-init-tables"
    (artifact,) = wandb.kept
    assert (artifact.name, artifact.type, artifact.metadata) == ("recipe-init-tables", "tables", {"runs": ["a"]})
    assert artifact.files == {"table.csv": b"x\n0\n", "part/table.csv": b"x\n1\n"}
    told = {name: wandb.settings[name] for name in ("project", "id", "group", "job_type", "mode", "resume", "dir")}
    assert told == {
        "project": "mine", "id": "report-recipe-init", "group": "recipe/init", "job_type": "report",
        "mode": "offline", "resume": "allow", "dir": str(files[0].parent),
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "named"), [("offline", "part/table.csv"), ("online", "{out}/part/table.csv")])
def test_what_waits_for_a_sync_is_named_from_its_folder(files, wandb, mode, named):
    send(files, mode=mode)
    (artifact,) = wandb.kept
    assert artifact.entries["part/table.csv"].local_path == named.format(out=files[0].parent.resolve())


def test_copies_that_the_user_wants_elsewhere_keep_their_places(files, wandb, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere" / "copy"
    monkeypatch.setattr(FakeArtifact, "add_file", lambda *_, **__: kept)
    kept = types.SimpleNamespace(local_path=str(copy))
    send(files)
    assert kept.local_path == str(copy)


@pytest.mark.parametrize("error", [SystemExit("no API key"), ConnectionError("no route to host\nmore")])
def test_a_failure_is_one_sentence_that_says_where_the_files_are(files, wandb, error):
    def init(**settings):
        raise error

    wandb.init = init
    with pytest.raises(StudyError, match=rf"could not take .*-tables: no .*; the files are in {files[0].parent}\."):
        send(files, mode="online")


def test_the_commands_send_what_they_have_written_to_the_project_of_the_runs(tmp_path, wandb, capsys, monkeypatch):
    planted.plant(tmp_path / "runs", planted.FIRST_LOOK[:2], (0.0, 0.0))
    monkeypatch.setattr("moe_study.analysis.report.draw_all", lambda part, out: [])
    monkeypatch.setattr("moe_study.analysis.page.page.write_page", lambda _, out, *rest: out.write_text("a") and out)
    out = tmp_path / "plots"
    assert main(["plots", str(tmp_path / "runs"), f"--out={out}", "--wandb", "offline"]) == 0
    online = ["--wandb=online", "--wandb-project=p"]
    assert main(["report", str(tmp_path / "runs"), f"--out={out / 'r.html'}", *online]) == 0
    said = capsys.readouterr().out
    tables, report = wandb.kept
    assert {"answers.md", "table.csv", "table.parquet", "table.md", "table.tex"} <= set(tables.files)
    assert tables.files["table.csv"] == (out / "table.csv").read_bytes() and len(tables.metadata["runs"]) == 4
    assert list(report.files) == ["r.html"] and (report.name, wandb.settings["project"]) == ("runs-report", "p")
    assert f"are the artifact runs-tables in {out / 'wandb'}; type: cd {out} && wandb sync wandb/offline-run-*" in said
    assert "are the artifact runs-report in the project p" in said


def test_without_the_option_wandb_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    monkeypatch.setattr("moe_study.analysis.report.draw_all", lambda part, out: [])
    planted.plant(tmp_path / "runs", planted.FIRST_LOOK[:1], (0.0,))
    assert main(["plots", str(tmp_path / "runs"), f"--out={tmp_path / 'plots'}"]) == 0


@pytest.mark.long
def test_the_real_library_keeps_all_that_a_later_sync_needs_in_a_folder_that_can_be_moved(files, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    send(files)
    for file in files:
        file.unlink()  # the next plots will write others
    moved = files[0].parent.rename(tmp_path / "moved")
    (file,) = (moved / "wandb").glob("offline-run-*-report-recipe-init/*.wandb")
    (artifact,) = [record.artifact for record in records(file) if record.HasField("artifact")]
    assert (artifact.name, artifact.type, json.loads(artifact.metadata)) == (
        "recipe-init-tables", "tables", {"runs": ["a"]},
    )  # fmt: skip
    kept = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert set(kept) == {"table.csv", "part/table.csv"} and not any(path.is_absolute() for path in kept.values())
    copies = {name: (moved / path).read_text() for name, path in kept.items()}
    assert copies == {"table.csv": "x\n0\n", "part/table.csv": "x\n1\n"}
