import dataclasses
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_study.data import PreparedCorpus, corpus_folder, open_corpus, preparation, prepare
from moe_study.data.buckets import HashedDocument, bucket_path, read_bucket, scatter
from moe_study.data.documents import Document, is_validation, text_hash
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.errors import ConfigError, DataError
from tests.fixtures import tiny_data_config, tiny_texts, write_tiny_corpus

BPE = TokenizerConfig("bpe", 400)


def ids_of(corpus: PreparedCorpus) -> dict[str, list[int]]:
    """All tokens by shard."""
    shards = [*corpus.train.shards, *corpus.validation.shards]
    return {f"{s.path.parent.name}/{s.path.name}": s.tokens.tolist() for s in shards}


def texts_of(corpus: PreparedCorpus, split: str) -> set[str]:
    """All documents of a split, decoded."""
    found: set[str] = set()
    for shard in getattr(corpus, split).shards:
        found |= set(corpus.tokenizer.decode(shard.tokens).split("<|endoftext|>"))
    return found - {""}


def with_options(config: DataConfig, **options: Any) -> DataConfig:
    return dataclasses.replace(config, options={**config.options, **options})


def test_the_tiny_corpus_is_prepared_in_a_second_and_found_again_at_once(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    started = time.process_time()  # of the processor: this machine may be busy with other things
    corpus = prepare(config, progress=False)
    assert time.process_time() - started < 1
    assert (corpus.languages, corpus.topics) == (["de", "en"], ["news", "parliament"])
    started = time.process_time()
    again = prepare(config, progress=False)
    assert time.process_time() - started < 0.2
    assert again.fingerprint == corpus.fingerprint == open_corpus(config, verify=True).fingerprint


def test_nothing_but_the_corpus_is_left_behind(tmp_path: Path) -> None:
    corpus = prepare(tiny_data_config(tmp_path, tokenizer=BPE), progress=False)
    names = {p.name for p in corpus.folder.iterdir()} - {".verified.json"}
    assert names == {"manifest.json", "train", "validation", "token_bytes.npy", "tokenizer.json"}
    assert not [p for p in corpus.folder.rglob("*") if ".part-" in p.name]


def test_corpora_with_different_tokenizers_live_side_by_side(tmp_path: Path) -> None:
    configs = [tiny_data_config(tmp_path), tiny_data_config(tmp_path, tokenizer=BPE)]
    first, second = (prepare(config, progress=False) for config in configs)
    assert first.folder.parent == second.folder.parent == tmp_path / "data"
    assert first.folder != second.folder and first.fingerprint != second.fingerprint
    assert open_corpus(configs[0]).vocab_size == 257 and open_corpus(configs[1]).vocab_size == 400


def test_the_fingerprint_tells_recipe_options_tokenizer_and_content_apart(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    hub = {"sources": [{"folder": config.options["path"], "files": ["*.jsonl"]}]}
    variants = {
        "itself": config,
        "fraction": dataclasses.replace(config, validation_fraction=0.3),
        "tokenizer": dataclasses.replace(config, tokenizer=TokenizerConfig("bpe", 300)),
        "vocabulary": dataclasses.replace(config, tokenizer=TokenizerConfig("bpe", 301)),
        "options": with_options(config, topic_field=None),
        "recipe": dataclasses.replace(config, recipe="hub_parquet", options=hub),
    }
    found = {name: prepare(c, progress=False).fingerprint for name, c in variants.items()}
    (tmp_path / "texts" / "more.jsonl").write_text('{"text": "One more text."}\n')
    found["content"] = prepare(config, progress=False).fingerprint
    assert len(set(found.values())) == len(found)


def test_a_document_never_changes_sides_when_others_come(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path, documents=40)
    before = prepare(config, progress=False)
    sides = {split: texts_of(before, split) for split in ("train", "validation")}
    write_tiny_corpus(tmp_path / "texts", documents=90)
    extra = tiny_texts("de", "news", 30, seed=9)
    lines = "".join(json.dumps({"text": t, "language": "de", "topic": "news"}) + "\n" for t in extra)
    (tmp_path / "texts" / "0-first.jsonl").write_text(lines)
    after = prepare(config, progress=False)
    for split, texts in sides.items():
        assert texts < texts_of(after, split)


def test_a_text_stands_once_whatever_file_it_comes_from(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    alone = ids_of(prepare(config, progress=False))
    copy = (tmp_path / "texts" / "en-news.jsonl").read_text()
    (tmp_path / "texts" / "z-copy.jsonl").write_text(copy + copy)
    assert ids_of(prepare(config, progress=False)) == alone


@pytest.mark.parametrize("count", [3, 64])
def test_the_number_of_buckets_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    whole = prepare(config, progress=False)
    monkeypatch.setattr(preparation, "bucket_count", lambda size: count)
    monkeypatch.setattr("moe_study.data.buckets._FLUSH_BYTES", 100)
    monkeypatch.setattr("moe_study.data.encode._CHUNK_BYTES", 1000)
    cut = prepare(dataclasses.replace(config, root=str(tmp_path / "cut")), progress=False)
    assert cut.fingerprint == whole.fingerprint
    assert cut.train.documents().equals(whole.train.documents())


STAGES = ["scatter", "encode_bucket", "assemble", "fingerprint_of"]
KILLED = """
import json, os, signal, sys
from moe_study.design.config import DataConfig
from moe_study.design.plain import from_plain
from moe_study.data import preparation
config = from_plain(DataConfig, json.loads(sys.argv[1]))
stage, calls = sys.argv[2], 0
whole = getattr(preparation, stage)
def dies(*arguments, **named):
    global calls
    calls += 1
    if stage == "encode_bucket" and calls < 3:
        return whole(*arguments, **named)
    whole(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(preparation, stage, dies)
preparation.bucket_count = lambda size: 4
preparation.prepare(config, progress=False)
"""


def kill_while_preparing(config: DataConfig, stage: str) -> None:
    """Prepare in another process that is killed at the end of `stage` (of its third bucket when encoding)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    plain = json.dumps(dataclasses.asdict(config))
    result = subprocess.run([sys.executable, "-c", KILLED, plain, stage], env=environment)
    assert result.returncode == -signal.SIGKILL


LATER_STAGES = [pytest.param(stage, marks=pytest.mark.long) for stage in STAGES[1:]]


@pytest.mark.parametrize("stage", [STAGES[0], *LATER_STAGES])
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


def test_what_belongs_together_is_on_one_side_whatever_its_texts(tmp_path: Path) -> None:
    documents = [Document(f"text {n} of {group}", "en", "x", group) for n in range(4) for group in map(str, range(60))]
    hashed = [HashedDocument(text_hash(document.text), document) for document in documents]
    sides: dict[str, set[bool]] = {}
    for one in hashed:
        sides.setdefault(one.document.group, set()).add(one.is_validation(0.3))
    assert all(len(side) == 1 for side in sides.values())
    assert 6 < sum(side == {True} for side in sides.values()) < 30
    alone = [HashedDocument(one.hash, one.document._replace(group="")) for one in hashed]
    assert [one.is_validation(0.3) for one in alone] == [is_validation(one.hash, 0.3) for one in alone]
    scatter(documents, tmp_path, 1)
    assert {one.document for one in read_bucket(bucket_path(tmp_path, 0))} == set(documents)


def test_changed_sources_are_prepared_again_and_lost_ones_do_not_matter(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path)
    before = prepare(config, progress=False)
    still_open = before.train.shards[0].tokens
    ids = still_open.tolist()
    (tmp_path / "texts" / "de-news.jsonl").write_text('{"text": "Neu."}\n')
    after = prepare(config, progress=False)
    assert after.fingerprint != before.fingerprint
    assert still_open.tolist() == ids, "a run that has the old corpus open must not see the new one"
    (tmp_path / "texts").rename(tmp_path / "gone")
    assert prepare(config, progress=False).fingerprint == after.fingerprint


def test_a_damaged_corpus_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_data_config(tmp_path)
    corpus = prepare(config, progress=False)
    for path in (corpus.train.shards[1].path, corpus.folder / "manifest.json"):
        path.write_bytes(b"?")
        assert prepare(config, progress=True).fingerprint == corpus.fingerprint
        assert f"{path} is damaged" in capsys.readouterr().err
    open_corpus(config, verify=True)


def _prepare_in_process(config: DataConfig) -> str:
    return prepare(config, progress=False).fingerprint


def test_processes_that_start_at_once_share_the_work(tmp_path: Path) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        fingerprints = pool.map(_prepare_in_process, [config] * 2, chunksize=1)
    assert set(fingerprints) == {open_corpus(config, verify=True).fingerprint}


LIMITED = """
import json, resource, signal, sys
from moe_study.design.config import DataConfig
from moe_study.design.plain import from_plain
from moe_study.data import prepare
from moe_study.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    prepare(from_plain(DataConfig, json.loads(sys.argv[1])), progress=False)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [2_000, pytest.param(9_000, marks=pytest.mark.long)])
def test_a_disk_without_room_is_one_sentence_and_loses_nothing(tmp_path: Path, limit: int) -> None:
    """Files may not grow beyond the limit: the same errors, at other places, as on a disk that fills up."""
    config = tiny_data_config(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIMITED, json.dumps(dataclasses.asdict(config)), str(limit)]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert said.stdout.startswith("cannot write") and said.stdout.count("\n") == 1
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


def test_a_root_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_data_config(tmp_path), root=str(tmp_path / "texts" / "de-news.jsonl"))
    with pytest.raises(DataError, match=r"cannot write .*choose another folder"):
        prepare(config, progress=False)


def test_a_corpus_that_gives_no_validation_document_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_data_config(tmp_path), validation_fraction=1e-9)
    with pytest.raises(DataError, match="the validation split has no document"):
        prepare(config, progress=False)


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(" \n ")
    config = DataConfig("empty", "local_files", {"path": str(tmp_path / "texts")}, TokenizerConfig("bytes"))
    with pytest.raises(DataError, match="the corpus empty has no text"):
        prepare(dataclasses.replace(config, root=str(tmp_path / "data")), progress=False)


def test_labels_that_are_different_for_every_document_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    lines = "".join(json.dumps({"text": f"Text {n}", "topic": f"title {n}"}) + "\n" for n in range(2100))
    (tmp_path / "texts" / "a.jsonl").write_text(lines)
    config = DataConfig("many", "local_files", {"path": str(tmp_path / "texts")}, TokenizerConfig("bytes"))
    with pytest.raises(DataError, match="2100 different pairs of language and topic"):
        prepare(dataclasses.replace(config, root=str(tmp_path / "data")), progress=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": "wiki"}, "data.recipe=wiki is unknown; choose one of parliament_news"),
        ({"validation_fraction": 0.0}, "must be between 0 and 1"),
        ({"validation_fraction": 1.0}, "must be between 0 and 1"),
        ({"tokenizer": TokenizerConfig("bpe", 100)}, "vocab_size=100 must be at least 257"),
        ({"tokenizer": TokenizerConfig("bpe", None)}, "needs data.tokenizer.vocab_size"),
        ({"tokenizer": TokenizerConfig("gpt3")}, "kinds are gpt2, bpe and bytes"),
        ({"options": {"path": "x", "pth": 1}}, "unknown key data.options.pth"),
        ({"options": {}}, "set data.options.path"),
    ],
)
def test_a_configuration_without_meaning_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    config = dataclasses.replace(tiny_data_config(tmp_path), **change)
    with pytest.raises(ConfigError) as caught:
        prepare(config, progress=False)
    assert sentence in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_progress_goes_to_standard_error_and_can_be_turned_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_data_config(tmp_path, tokenizer=BPE)
    prepare(dataclasses.replace(config, root=str(tmp_path / "silent")), progress=False)
    assert capsys.readouterr() == ("", "")
    prepare(config, progress=True)
    assert "tiny: encoding" in capsys.readouterr().err


def test_domains_are_laid_end_to_end_in_the_order_of_hashes(tmp_path: Path) -> None:
    corpus = prepare(tiny_data_config(tmp_path), progress=False)
    index = corpus.train.documents().to_pandas()
    for _, rows in index.groupby("shard"):
        assert rows["hash"].is_monotonic_increasing
        np.testing.assert_array_equal(rows["start"].to_numpy()[1:], rows["tokens"].cumsum().to_numpy()[:-1])
