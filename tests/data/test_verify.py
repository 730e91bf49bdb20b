import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moe_study.data import PreparedCorpus, open_corpus, prepare, verify
from moe_study.data.verify import VERIFIED
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.errors import DataError
from tests.fixtures import tiny_data_config


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return tiny_data_config(tmp_path, tokenizer=TokenizerConfig("bpe", 300))


@pytest.fixture
def corpus(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> PreparedCorpus:
    """A corpus whose files were all verified, as if they were old."""
    monkeypatch.setattr(verify, "SETTLED", -1.0)
    found = prepare(config, progress=False)
    assert set(json.loads((found.folder / VERIFIED).read_text())) == {
        str(p.relative_to(found.folder)) for p in content_of(found.folder)
    }
    time.sleep(0.02)  # the kernel's clock for files is coarse
    return found


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the files that were hashed."""
    names: list[str] = []
    whole = verify.sha256_of

    def counted(path: Path) -> str:
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(verify, "sha256_of", counted)
    yield names


def content_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in ("manifest.json", VERIFIED))


def other_content(path: Path) -> bytes:
    """As many bytes, one of them another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def in_place(path: Path) -> None:
    path.write_bytes(other_content(path))


def in_place_with_its_times(path: Path) -> None:
    """As `touch -r` does it."""
    before = path.stat()
    in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copied_over_with_its_times(path: Path) -> None:
    """As `cp -p` does it: the same inode, another content, the times of a file that looks the same."""
    before = path.stat()
    copy = path.parent / "copy"
    copy.write_bytes(other_content(path))
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.copy2(copy, path)
    copy.unlink()
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def renamed_over_with_its_times(path: Path) -> None:
    """As `rsync -t` does it."""
    before = path.stat()
    copy = path.parent / "copy"
    copy.write_bytes(other_content(path))
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.rename(path)


WAYS = [in_place, in_place_with_its_times, copied_over_with_its_times, renamed_over_with_its_times]


@pytest.mark.parametrize("way", WAYS)
def test_every_file_that_was_overwritten_is_refused_by_name(
    config: DataConfig, corpus: PreparedCorpus, way: Callable[[Path], None]
) -> None:
    files = content_of(corpus.folder)
    assert len(files) == 8 + 2 + 2  # shards, indexes of documents, token_bytes.npy, tokenizer.json
    for path in files:
        whole = path.read_bytes()
        way(path)
        with pytest.raises(DataError, match=rf"{path.name} is damaged \(its content is not what was prepared"):
            open_corpus(config)
        path.write_bytes(whole)
    assert open_corpus(config).fingerprint == corpus.fingerprint


def test_two_shards_of_equal_size_that_changed_places_are_refused(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    shards = [shard.path for shard in prepare(config, progress=False).train.shards]
    shorter, longer = sorted(shards[:2], key=lambda path: path.stat().st_size)
    longer.write_bytes(shorter.read_bytes() + longer.read_bytes()[shorter.stat().st_size :])
    with pytest.raises(DataError, match=longer.name):
        open_corpus(config)


def test_what_was_verified_and_not_touched_is_not_hashed_again(
    config: DataConfig, corpus: PreparedCorpus, hashed: list[str]
) -> None:
    open_corpus(config)
    assert hashed == []
    os.utime(corpus.train.shards[0].path)
    open_corpus(config)
    assert hashed == [corpus.train.shards[0].path.name]
    open_corpus(config, verify=True)
    assert len(hashed) == 1 + 12


def test_a_file_that_is_younger_than_its_clock_is_fine_is_hashed_again(
    config: DataConfig, hashed: list[str]
) -> None:
    """It could be overwritten a moment later and keep even its time of change."""
    prepare(config, progress=False)
    hashed.clear()
    open_corpus(config)
    assert len(hashed) == 12


def test_where_nothing_can_be_written_every_opening_hashes(
    config: DataConfig, corpus: PreparedCorpus, hashed: list[str]
) -> None:
    (corpus.folder / VERIFIED).unlink()
    (corpus.folder / VERIFIED).mkdir()  # no file can take that name
    for _ in range(2):
        hashed.clear()
        open_corpus(config)
        assert len(hashed) == 12
    assert not [p for p in corpus.folder.iterdir() if ".part-" in p.name]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token_bytes.npy": 3}', '{"token_bytes.npy": []}'])
def test_a_damaged_record_means_hashing(
    config: DataConfig, corpus: PreparedCorpus, hashed: list[str], content: str
) -> None:
    (corpus.folder / VERIFIED).write_text(content)
    open_corpus(config)
    assert len(hashed) == 12
    open_corpus(config)
    assert len(hashed) == 12


def test_a_copied_corpus_is_hashed_once_where_it_lies(
    config: DataConfig, corpus: PreparedCorpus, tmp_path: Path, hashed: list[str]
) -> None:
    shutil.copytree(corpus.folder, tmp_path / "copy" / corpus.folder.name)
    copied = DataConfig(**{**vars(config), "root": str(tmp_path / "copy")})
    for _ in range(2):
        open_corpus(copied)
        assert len(hashed) == 12


def test_many_that_open_at_once_leave_one_whole_record(config: DataConfig, corpus: PreparedCorpus) -> None:
    (corpus.folder / VERIFIED).unlink()
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_corpus(config), range(24)))
    assert {one.fingerprint for one in opened} == {corpus.fingerprint}
    assert len(json.loads((corpus.folder / VERIFIED).read_text())) == 12


def test_prepare_makes_again_what_was_overwritten(
    config: DataConfig, corpus: PreparedCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus.validation.shards[2].path
    in_place_with_its_times(path)
    assert prepare(config, progress=True).fingerprint == corpus.fingerprint
    assert f"preparing again, since {path} is damaged" in capsys.readouterr().err
    open_corpus(config)
