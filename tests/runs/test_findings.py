"""Findings on disk: whole, of one trace, remade where damaged."""

from pathlib import Path

import pandas as pd
import pytest

from moe_study.errors import DataError
from moe_study.runs.columns import Holds
from moe_study.runs.findings import all_findings, find_finding, finding_names, write_finding
from moe_study.runs.traces import TraceIdentity

IDENTITY = TraceIdentity("key", "weights", "wiki_topics", "0123456789abcdef0123")
TABLE = pd.DataFrame({"layer": [0, 1], "domain": ["de", "العربية"], "value": [0.1, float("nan")]})


def test_a_finding_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_finding(tmp_path, IDENTITY, "load", TABLE, {"permutations": 1000, "by": "gate"})
    found = find_finding(tmp_path, IDENTITY, "load", {"permutations": 1000})
    assert found is not None
    pd.testing.assert_frame_equal(found.table, TABLE, check_dtype=False)
    assert found.identity == IDENTITY
    assert found.facts == {"permutations": 1000, "by": "gate"}


def test_a_finding_of_another_trace_or_with_other_facts_is_not_taken(tmp_path: Path) -> None:
    write_finding(tmp_path, IDENTITY, "load", TABLE, {"permutations": 1000})
    other_weights = TraceIdentity("key", "others", IDENTITY.probe, IDENTITY.probe_fingerprint)
    other_probe = TraceIdentity("key", "weights", "brown", IDENTITY.probe_fingerprint)
    assert find_finding(tmp_path, other_weights, "load", {}) is None
    assert find_finding(tmp_path, other_probe, "load", {}) is None
    assert find_finding(tmp_path, IDENTITY, "load", {"permutations": 10}) is None
    assert find_finding(tmp_path, IDENTITY, "paths", {}) is None
    any_weights = TraceIdentity("key", None, IDENTITY.probe, IDENTITY.probe_fingerprint)
    assert find_finding(tmp_path, any_weights, "load", {}) is not None


def test_the_newest_of_a_name_replaces_the_one_before(tmp_path: Path) -> None:
    write_finding(tmp_path, IDENTITY, "load", TABLE, {"permutations": 10})
    write_finding(tmp_path, IDENTITY, "load", TABLE.iloc[:1], {"permutations": 1000})
    (found,) = all_findings(tmp_path, "load")
    assert found.facts == {"permutations": 1000}
    assert len(found.table) == 1


def test_a_damaged_finding_counts_as_absent(tmp_path: Path) -> None:
    write_finding(tmp_path, IDENTITY, "load", TABLE, {})
    (path,) = tmp_path.glob("*/load.parquet")
    path.write_bytes(path.read_bytes()[:100])
    assert find_finding(tmp_path, IDENTITY, "load", {}) is None
    assert list(all_findings(tmp_path, "load")) == []


def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a name"):
        write_finding(tmp_path, IDENTITY, "../load", TABLE, {})


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="not a folder"):
        write_finding(tmp_path / "file", IDENTITY, "load", TABLE, {})


def test_names_are_those_of_all_probes(tmp_path: Path) -> None:
    assert finding_names(tmp_path) == []
    brown = TraceIdentity("key", "weights", "brown", IDENTITY.probe_fingerprint)
    for identity, name in ((IDENTITY, "load"), (brown, "load"), (brown, "co_activation")):
        write_finding(tmp_path, identity, name, TABLE, {})
    (tmp_path / "notes.parquet").touch()
    assert finding_names(tmp_path) == ["co_activation", "load"]


def test_a_table_that_opens_and_lacks_a_column_counts_as_damaged_and_is_told(tmp_path: Path) -> None:
    whole = {"layer": Holds.PLACE, "domain": Holds.TEXT, "value": Holds.NUMBER}
    other = TraceIdentity("key", "weights", "brown", IDENTITY.probe_fingerprint)
    write_finding(tmp_path, IDENTITY, "load", TABLE.drop(columns="value"), {})
    write_finding(tmp_path, other, "load", TABLE, {})
    problems: list[str] = []
    (found,) = all_findings(tmp_path, "load", whole, problems)
    assert found.identity == other and find_finding(tmp_path, IDENTITY, "load", {}, whole) is None
    (problem,) = problems
    assert problem.startswith(f"{IDENTITY.folder_in(tmp_path)}/load.parquet is damaged: it has no column value; delete")


@pytest.mark.parametrize(
    "attrs",
    [
        {"identity": {"run": 3, "weights": None, "probe": "brown", "probe_fingerprint": "ab"}},
        {"identity": None},
        {"facts": None},
        {"facts": {"tokens": "many"}},
        {"facts": {"notes": "none"}},
        {"format": None, "identity": {}},
    ],
)
def test_a_finding_that_does_not_say_what_it_rests_on_is_damaged_or_of_another_version(
    tmp_path: Path, attrs: dict[str, object]
) -> None:
    write_finding(tmp_path, IDENTITY, "load", TABLE, {})
    (path,) = tmp_path.glob("*/load.parquet")
    table = pd.read_parquet(path)
    table.attrs |= attrs
    table.to_parquet(path)
    assert list(all_findings(tmp_path, "load")) == [] and find_finding(tmp_path, IDENTITY, "load", {}) is None
