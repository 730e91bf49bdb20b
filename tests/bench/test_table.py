import json
from pathlib import Path
from typing import Any

import pytest

from bench import table
from bench.table import draw, got_worse

CPU, GPU = "cpu-some-2-cores", "nvidia-h200"


def row(median: float, spread: float = 0.02, **more: Any) -> dict[str, Any]:
    return {"median": median, "low": median - spread / 2, "high": median + spread / 2, **more}


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plants results; commits are as old as their number says, and the repository knows none of them."""
    monkeypatch.setattr(table, "commit_time", lambda commit: None)

    def plant(machine: str, day: int, rows: dict[str, Any], commit: str | None = None) -> Path:
        content = {
            "environment": {"torch": "2.13.0", "processor": "Some"},
            "commit": commit or f"commit{day}",
            "date": f"2026-01-{day:02}T00:00:00+00:00",
            "rows": rows,
        }
        (tmp_path / machine).mkdir(exist_ok=True)
        (tmp_path / machine / f"{content['commit']}.json").write_text(json.dumps(content))
        return tmp_path

    return plant


def cells(page: str, name: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_newest_commit_comes_first_with_must_aim_and_quartiles(keep: Any) -> None:
    keep(CPU, 2, {"layer 8x1": row(1.10)})
    page = draw(keep(CPU, 1, {"layer 8x1": row(1.12)}), commits=4)
    assert cells(page, "row") == ["must", "aim", "commit2", "quartiles", "commit1"]
    assert cells(page, "layer 8x1") == ["1.22", "1.12", "1.10", "1.09 to 1.11", "1.12"]
    assert "2.13.0; Some; at commit2" in page


def test_a_row_over_its_must_is_marked_and_one_at_it_is_not(keep: Any) -> None:
    page = draw(keep(CPU, 1, {"layer 8x1": row(1.23), "layer 8x2": row(1.22), "peer a b 8x1, 2 threads": row(0.95)}), 4)
    assert cells(page, "layer 8x1")[2] == "1.23 ✗"
    assert cells(page, "layer 8x2")[2] == "1.22"
    assert cells(page, "peer a b 8x1, 2 threads")[:3] == ["0.90", "0.75", "0.95 ✗"]


def test_a_regression_is_marked_only_beyond_both_spreads(keep: Any) -> None:
    keep(CPU, 1, {"steady": row(1.0), "noisy now": row(1.0), "noisy then": row(1.0, 0.2), "better": row(1.0)})
    newer = {"steady": row(1.1), "noisy now": row(1.1, 0.2), "noisy then": row(1.1), "better": row(0.9)}
    page = draw(keep(CPU, 2, newer), 4)
    assert cells(page, "steady")[2] == "1.10 ▲"
    assert [cells(page, name)[2] for name in ("noisy now", "noisy then", "better")] == ["1.10", "1.10", "0.90"]


def test_a_regression_is_judged_by_the_last_commit_that_has_the_row(keep: Any) -> None:
    keep(CPU, 1, {"one": row(1.0)})
    keep(CPU, 2, {"one": {"skipped": "no time"}})
    page = draw(keep(CPU, 3, {"one": row(1.5)}), commits=2)
    assert cells(page, "one") == ["", "", "1.50 ▲", "1.49 to 1.51", "–"]


def test_old_regressions_stay_marked_in_their_column(keep: Any) -> None:
    keep(CPU, 1, {"one": row(1.0)})
    keep(CPU, 2, {"one": row(1.5)})
    page = draw(keep(CPU, 3, {"one": row(1.0)}), 4)
    assert cells(page, "one")[2:] == ["1.00", "0.99 to 1.01", "1.50 ▲", "1.00"]


def test_tiny_changes_of_what_does_not_spread_are_no_regression() -> None:
    assert not got_worse(row(1.005, 0.0), row(1.0, 0.0))
    assert got_worse(row(1.02, 0.0), row(1.0, 0.0))


def test_each_machine_has_its_table_and_its_own_targets(keep: Any) -> None:
    keep(CPU, 1, {"layer 8x1": row(1.1)})
    page = draw(keep(GPU, 2, {"gpu layer 8x2": row(1.1)}), 4)
    cpu, gpu = page.split(f"## {GPU}")
    assert "| gpu " not in cpu.split(f"## {CPU}")[1]
    assert "| layer 8x1 |" not in gpu and cells(gpu, "gpu layer 64x8") == ["2.20", "1.40", "–", "–"]
    assert cells(cpu, "layer 64x8")[2] == "–"  # wanted, and not measured


def test_only_the_newest_commits_become_columns(keep: Any) -> None:
    for day in range(1, 8):
        folder = keep(CPU, day, {"layer 8x1": row(1.1)})
    assert cells(draw(folder, commits=3), "row") == ["must", "aim", "commit7", "quartiles", "commit6", "commit5"]


def test_reasons_for_skipping_and_units_are_told(keep: Any) -> None:
    page = draw(keep(CPU, 1, {"peer a": {"skipped": "a is not installed"}, "start": row(0.5, unit="s")}), 4)
    assert "- peer a: a is not installed" in page
    assert cells(page, "start")[2] == "0.50 s"


def test_commits_are_ordered_by_their_own_time_where_the_repository_knows_it(
    keep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "commit_time", lambda commit: {"old": 1.0, "new": 2.0}[commit])
    keep(CPU, 9, {"one": row(1.0)}, commit="old")  # measured after the other
    assert cells(draw(keep(CPU, 1, {"one": row(1.0)}, commit="new"), 4), "row")[2] == "new"


def test_the_page_is_written_beside_the_results(keep: Any) -> None:
    folder = keep(CPU, 1, {"layer 8x1": row(1.1)})
    table.write(folder=folder)
    assert (folder / "README.md").read_text() == draw(folder, 4)
