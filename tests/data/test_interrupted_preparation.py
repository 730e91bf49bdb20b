"""Preparing a corpus with something in between: a kill, a second process, a full disk, damage, a read-only folder."""

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_study.data import corpus_folder, open_corpus, preparation, prepare
from moe_study.design.config import DataConfig
from moe_study.errors import DataError
from tests.data.test_preparation import BPE, ids_of
from tests.fixtures import tiny_data_config

STAGES = ["scatter", "encode_bucket", "assemble", "fingerprint_of"]


def in_a_process(work: Callable[[], object]) -> int | None:
    """Do `work` in a process of its own; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def kill_while_preparing(config: DataConfig, stage: str) -> None:
    """Prepare in another process that is killed at the end of `stage` (of its third bucket when encoding)."""
    whole, calls = getattr(preparation, stage), []

    def dies(*arguments: Any, **named: Any) -> Any:
        found = whole(*arguments, **named)
        calls.append(stage)
        if stage != "encode_bucket" or len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def die() -> None:
        setattr(preparation, stage, dies)
        preparation.bucket_count = lambda size: 4
        prepare(config, progress=False)

    assert in_a_process(die) == -signal.SIGKILL


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_it_is_not_taken_for_whole_and_ends_the_same(tmp_path: Path, stage: str) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    kill_while_preparing(config, stage)
    with pytest.raises(DataError, match="not prepared"):
        open_corpus(config)
    resumed = prepare(config, progress=False)
    undisturbed = prepare(dataclasses.replace(config, root=str(tmp_path / "other")), progress=False)
    assert resumed.fingerprint == undisturbed.fingerprint
    assert ids_of(open_corpus(config, verify=True)) == ids_of(undisturbed)


def test_finished_stages_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    kill_while_preparing(config, "encode_bucket")
    done: list[str] = []
    for stage in ("scatter", "train_bpe", "encode_bucket"):
        whole = getattr(preparation, stage)

        def counted(*arguments: Any, _stage: str = stage, _whole: Any = whole, **named: Any) -> Any:
            done.append(_stage)
            return _whole(*arguments, **named)

        monkeypatch.setattr(preparation, stage, counted)
    prepare(config, progress=False)
    assert done == ["encode_bucket"]  # three of four buckets were there


def test_what_was_begun_from_other_sources_is_thrown_away(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    kill_while_preparing(config, "encode_bucket")
    (tmp_path / "texts" / "de-news.jsonl").unlink()
    corpus = prepare(config, progress=False)
    assert corpus.train.shards[0].path.name == "000-de-parliament.bin"


def test_what_an_older_version_began_is_thrown_away(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    kill_while_preparing(config, "encode_bucket")
    work = corpus_folder(config) / "work"
    begun = json.loads((work / "begun.json").read_text())
    (work / "begun.json").write_text(json.dumps({"stamp": begun["stamp"]}))  # which knew no groups
    for bucket in (work / "documents").iterdir():
        bucket.write_bytes(b"of another layout")
    assert prepare(config, progress=False).train.tokens > 0


def test_processes_that_start_at_once_share_the_work(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        fingerprints = pool.map(_fingerprint, [config] * 2, chunksize=1)
    assert set(fingerprints) == {open_corpus(config, verify=True).fingerprint}


def _fingerprint(config: DataConfig) -> str:
    return prepare(config, progress=False).fingerprint


@pytest.mark.parametrize("limit", [2_000, 9_000])
def test_a_disk_without_room_is_one_sentence_and_loses_nothing(tmp_path: Path, limit: int) -> None:
    """Files may not grow beyond the limit: the same errors, at other places, as on a disk that fills up."""
    config = tiny_data_config(tmp_path)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            prepare(config, progress=False)
        except DataError as error:
            (tmp_path / "said").write_text(str(error))

    assert in_a_process(limited) == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith("cannot write") and "\n" not in said
    with pytest.raises(DataError, match="not prepared"):
        open_corpus(config)
    prepare(config, progress=False)


def test_a_read_only_folder_is_one_sentence_and_still_serves_what_it_has(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    corpus = prepare(config, progress=False)
    (tmp_path / "data").chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(tmp_path / "data", os.W_OK):
        pytest.skip("this user may write into read-only folders")
    assert prepare(config, progress=False).fingerprint == corpus.fingerprint
    with pytest.raises(DataError, match=r"cannot write .*permission denied"):
        prepare(dataclasses.replace(config, tokenizer=BPE), progress=False)


def test_a_damaged_corpus_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_data_config(tmp_path)
    corpus = prepare(config, progress=False)
    for path in (corpus.train.shards[1].path, corpus.folder / "manifest.json"):
        path.write_bytes(b"?")
        assert prepare(config, progress=True).fingerprint == corpus.fingerprint
        assert f"{path} is damaged" in capsys.readouterr().err
    open_corpus(config, verify=True)
