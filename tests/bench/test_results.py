import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import common, machine
from bench.common import Results, Row, Skipped
from moe_study.errors import StudyError


def row(median: float = 1.0) -> Row:
    return {"median": median, "low": median - 0.1, "high": median + 0.1, "seconds_of": "CPU, one thread"}


class Counted:
    """A measurement that counts how often it is made."""

    def __init__(self, measure: Callable[[], Row]) -> None:
        self.measure, self.calls = measure, 0

    def __call__(self) -> Row:
        self.calls += 1
        return self.measure()


def skip() -> Row:
    raise Skipped("the package is not installed")


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def of(name: str, changes: str | None = None) -> None:
        monkeypatch.setattr(common, "code_under_test", lambda: (name, changes))

    of("abc")
    return of


def test_a_row_is_written_at_once_and_not_measured_again(tmp_path: Path, commit: Callable[..., None]) -> None:
    first, second = Counted(lambda: row(1.5)), Counted(row)
    Results(tmp_path / "abc.json").measure("layer", first)
    assert json.loads((tmp_path / "abc.json").read_text())["rows"]["layer"]["median"] == 1.5
    assert Results(tmp_path / "abc.json").measure("layer", second)["median"] == 1.5
    assert (first.calls, second.calls) == (1, 0)


def test_again_measures_anew_and_keeps_the_other_rows(tmp_path: Path, commit: Callable[..., None]) -> None:
    Results(tmp_path / "a.json").measure("one", lambda: row(1.5))
    Results(tmp_path / "a.json").measure("two", lambda: row(1.5))
    Results(tmp_path / "a.json", again=True).measure("one", lambda: row(2.5))
    medians = {name: kept["median"] for name, kept in Results(tmp_path / "a.json").rows.items()}
    assert medians == {"one": 2.5, "two": 1.5}


def test_two_commands_that_share_a_file_lose_no_row(tmp_path: Path, commit: Callable[..., None]) -> None:
    one, two = Results(tmp_path / "a.json"), Results(tmp_path / "a.json")
    one.measure("one", row)
    two.measure("two", row)
    assert set(one.rows) == {"one", "two"}


def test_a_skipped_row_keeps_its_reason_and_is_tried_again(tmp_path: Path, commit: Callable[..., None]) -> None:
    results = Results(tmp_path / "a.json")
    assert results.measure("peer", skip) == {"skipped": "the package is not installed"}
    assert results.rows["peer"] == {"skipped": "the package is not installed"}
    assert results.measure("peer", row)["median"] == 1.0


def test_a_failing_measurement_leaves_the_rows_before_it(tmp_path: Path, commit: Callable[..., None]) -> None:
    def fail() -> Row:
        raise RuntimeError("out of memory")

    results = Results(tmp_path / "a.json")
    results.measure("one", row)
    with pytest.raises(RuntimeError):
        results.measure("two", fail)
    assert set(results.rows) == {"one"}


def test_rows_without_their_spread_are_refused(tmp_path: Path, commit: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="low"):
        Results(tmp_path / "a.json").measure("one", lambda: {"median": 1.0})


def test_results_of_another_commit_are_not_mixed_in(tmp_path: Path, commit: Callable[..., None]) -> None:
    Results(tmp_path / "a.json").measure("one", row)
    commit("def")
    with pytest.raises(StudyError, match="abc"):
        Results(tmp_path / "a.json").measure("two", row)


def test_rows_of_changes_that_are_gone_are_measured_anew(tmp_path: Path, commit: Callable[..., None]) -> None:
    commit("abc+changes", "one edit")
    Results(tmp_path / "a.json").measure("one", row)
    assert Results(tmp_path / "a.json").rows
    commit("abc+changes", "another edit")
    assert not Results(tmp_path / "a.json").rows


def test_a_row_from_another_environment_says_so(
    tmp_path: Path, commit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    Results(tmp_path / "a.json").measure("one", row)
    monkeypatch.setattr(common, "environment", lambda device: {"torch": "another"})
    results = Results(tmp_path / "a.json")
    results.measure("two", row)
    assert "environment" not in results.rows["one"]
    assert results.rows["two"]["environment"] == {"torch": "another"}


def test_the_commit_is_marked_only_by_changes_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    for name in ("code.py", "docs/LOG.md", "bench/results/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run((*git, *command), check=True)
    commit, changes = machine.code_under_test()
    assert len(commit) == 10 and changes is None
    (tmp_path / "docs/LOG.md").write_text("after")
    (tmp_path / "bench/results/a.json").write_text("after")
    assert machine.code_under_test() == (commit, None)
    (tmp_path / "code.py").write_text("after")
    changed, changes = machine.code_under_test()
    assert changed == f"{commit}+changes" and changes is not None
    (tmp_path / "code.py").write_text("after that")
    assert machine.code_under_test()[1] != changes


def test_without_a_repository_the_environment_names_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setenv("MOE_STUDY_COMMIT", "abc")
    assert machine.code_under_test() == ("abc", None)
    monkeypatch.delenv("MOE_STUDY_COMMIT")
    assert machine.code_under_test() == ("unknown", None)


def test_the_machine_names_a_folder() -> None:
    name = machine.machine_name("cpu")
    assert name.startswith("cpu-") and name.endswith("-cores") and name == Path(name).name
