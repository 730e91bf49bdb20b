"""Nothing that a command is asked to write can take the place of a run's own files."""

import pytest

from moe_study.cli import main
from moe_study.commands.places import check_out_file, check_out_folder
from moe_study.errors import StudyError


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "0123456789abcdef"
    folder.mkdir(parents=True)
    for name in ("config.yaml", "status.json", "result.json"):
        (folder / name).write_text("{}")
    return folder


def test_any_other_place_will_do(tmp_path, run):
    check_out_folder(tmp_path / "plots")
    check_out_file(tmp_path / "plots" / "report.html", "report.html")
    check_out_file(run.parent / "report.html", "report.html")


@pytest.mark.parametrize("name", ["result.json", "", "plots/table.csv"])
def test_a_place_in_a_runs_folder_is_refused(run, name):
    for check in (check_out_folder, lambda out: check_out_file(out, "report.html")):
        with pytest.raises(StudyError, match="lies in the folder of the run 0123456789abcdef"):
            check(run / name)


def test_what_is_of_the_other_kind_or_holds_runs_is_refused(tmp_path, run):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="is a file; name a folder"):
        check_out_folder(tmp_path / "file")
    with pytest.raises(StudyError, match="holds runs; name another folder"):
        check_out_folder(run.parent)
    with pytest.raises(StudyError, match=r"is a folder; name a file in it, such as .*/report\.html"):
        check_out_file(tmp_path, "report.html")


@pytest.mark.parametrize(
    "command",
    [
        ["plots", "RUNS", "--out", "RUNS"],
        ["report", "RUNS", "--out", "RUN/result.json"],
        ["specialise", "RUNS", "--out", "RUN"],
        ["knockout", "RUNS", "--out", "RUN"],
        ["results", "RUNS", "--out", "RUNS"],
        ["sparsify", "RUN", "--out", "RUN/result.json"],
    ],
)
def test_every_command_asks_before_it_begins(run, capsys, command):
    before = (run / "result.json").read_text()
    said = [word.replace("RUNS", str(run.parent)).replace("RUN", str(run)) for word in command]
    assert main(said) == 1 and "error: --out " in capsys.readouterr().err
    assert (run / "result.json").read_text() == before and len(list(run.iterdir())) == 3
