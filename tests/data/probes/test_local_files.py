"""Your own texts as a probe: labels are folders, and what cannot be one is refused in a sentence."""

from pathlib import Path

import pytest

from moe_study.data.probes import prepare_probe
from moe_study.data.tokenizers import ByteTokenizer
from moe_study.errors import ConfigError, DataError


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def labels(tmp_path: Path, files: dict[str, bytes]) -> dict[str, list[str]]:
    path = write(tmp_path / "texts", files)
    probe = prepare_probe("local_files", ByteTokenizer(), tmp_path / "data", path=path)
    return {name: [values[code] for code in codes] for name, (codes, values) in probe.document_labels.items()}


def test_sub_folders_are_labels(tmp_path: Path) -> None:
    found = labels(tmp_path, {"law/a.txt": b"a", "law/b.txt": b"b", "art/c.txt": b"c", ".git/x": b"x"})
    assert sorted(found["topic"]) == ["art", "law", "law"] and set(found) == {"topic"}


def test_two_levels_are_language_and_topic(tmp_path: Path) -> None:
    found = labels(tmp_path, {"de/law/a.txt": b"a", "en/law/b.txt": b"b"})
    assert sorted(found["language"]) == ["de", "en"] and found["topic"] == ["law", "law"]


def test_a_changed_text_is_another_probe(tmp_path: Path) -> None:
    path = write(tmp_path / "texts", {"law/a.txt": b"a"})
    first = prepare_probe("local_files", ByteTokenizer(), tmp_path / "data", path=path)
    write(path, {"law/a.txt": b"b"})
    assert prepare_probe("local_files", ByteTokenizer(), tmp_path / "data", path=path).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.txt": b"a"}, "sub-folders named by their label"),
        ({"law/a.txt": b"a", "de/law/b.txt": b"b"}, "equally deep"),
        ({"law/a.pdf": b"a"}, "no .txt file"),
        ({"law/a.txt": b"\xff"}, "not UTF-8"),
        ({"law/a.txt": b" "}, "holds no text"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, files: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        labels(tmp_path, files)


def test_a_folder_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--path FOLDER"):
        prepare_probe("local_files", ByteTokenizer(), tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        prepare_probe("local_files", ByteTokenizer(), tmp_path, path=tmp_path / "none")
