import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_study.data import PreparedCorpus, open_corpus, preparation, prepare
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


def test_a_root_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_data_config(tmp_path), root=str(tmp_path / "texts" / "de-news.jsonl"))
    with pytest.raises(DataError, match=r"cannot write .*choose another folder"):
        prepare(config, progress=False)


def test_a_corpus_that_gives_no_validation_document_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_data_config(tmp_path), validation_fraction=1e-9)
    with pytest.raises(DataError, match=r"the validation split has no document of the \d+ that differ"):
        prepare(config, progress=False)


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(" \n ")
    config = DataConfig("empty", "local_files", {"path": str(tmp_path / "texts")}, TokenizerConfig("bytes"))
    with pytest.raises(DataError, match=r"the corpus empty has no text \(left out: 1 without text\)"):
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
