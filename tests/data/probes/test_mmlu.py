"""mmlu read from parquet files that a stand-in for the hub gives."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moe_study.data.probes import mmlu, prepare_probe
from moe_study.data.recipes import hub
from moe_study.data.recipes.hub import Listing
from moe_study.data.tokenizers import ByteTokenizer
from moe_study.errors import DataError


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subjects: tuple[str, ...]) -> None:
    files = {}
    for subject in subjects:
        for split in ("test", "dev"):
            path = tmp_path / subject / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(exist_ok=True)
            rows = [{"question": f" What of {subject}? ", "choices": ["a", "b", split, "d"], "answer": 1}]
            pq.write_table(pa.Table.from_pylist(rows), path)
            files[f"{subject}/{path.name}"] = path.stat().st_size
    listing = Listing("c0ffee", files, tmp_path, note="from a cache")
    monkeypatch.setattr(hub, "list_files", lambda source, downloads: listing)
    monkeypatch.setattr(hub, "fetch", lambda source, listing, path, progress: tmp_path / path)


def test_questions_of_the_papers_six_subjects_are_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, (*mmlu.SUBJECTS, "astronomy"))
    probe = prepare_probe("mmlu", ByteTokenizer(), tmp_path / "data", progress=False)
    codes, values = probe.document_labels["topic"]
    assert probe.documents == 6 and sorted(codes) == list(range(6)) and "global facts" in values
    first = bytes(probe.token_T[: probe.start_D1[1]].tolist()).decode()
    assert first == f"What of {values[codes[0]].replace(' ', '_')}?\na\nb\ntest\nd" and probe.notes == ("from a cache",)


def test_a_subject_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, mmlu.SUBJECTS[1:])
    with pytest.raises(DataError, match="no test questions of abstract_algebra"):
        prepare_probe("mmlu", ByteTokenizer(), tmp_path / "data", progress=False)
