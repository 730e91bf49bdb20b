import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from moe_study.data import PreparedCorpus, corpus_folder, fingerprint, open_corpus, prepare
from moe_study.data.shards import MANIFEST, token_dtype
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.errors import DataError
from tests.fixtures import tiny_data_config, tiny_texts

TOKENIZERS = [TokenizerConfig("bytes"), TokenizerConfig("bpe", 500), TokenizerConfig("bpe", 70_000)]


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return tiny_data_config(tmp_path)


@pytest.fixture
def corpus(config: DataConfig) -> PreparedCorpus:
    return prepare(config, progress=False)


def naive_stream(
    corpus: PreparedCorpus, split: str, language: str, topic: str, documents: int, fraction: float
) -> list[int]:
    """A domain's ids from its texts, by the definition: in hash order, each with an end of text."""
    found: list[int] = []
    hashed = {hashlib.sha256(text.encode()).digest(): text for text in tiny_texts(language, topic, documents)}
    for digest in sorted(hashed):
        validation = int.from_bytes(digest[8:16], "big") / 2**64 < fraction
        if validation == (split == "validation"):
            found += [*corpus.tokenizer.encode(hashed[digest]), corpus.end_of_text]
    return found


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe", "bpe uint32"])
def test_shards_hold_what_a_naive_tokenisation_gives(tmp_path: Path, tokenizer: TokenizerConfig) -> None:
    config = tiny_data_config(tmp_path, tokenizer=tokenizer)
    corpus = prepare(config, progress=False)
    domains = set()
    for split in (corpus.train, corpus.validation):
        for shard in split.shards:
            language, topic = corpus.languages[shard.language], corpus.topics[shard.topic]
            domains.add((split.name, language, topic))
            expected = naive_stream(corpus, split.name, language, topic, 60, config.validation_fraction)
            assert shard.tokens.tolist() == expected
            assert shard.tokens.dtype == (np.uint32 if tokenizer.size > 65_536 else np.uint16)
            assert shard.documents == expected.count(corpus.end_of_text)
            assert shard.text_bytes == corpus.token_bytes_V[shard.tokens].sum()
    assert len(domains) == 8


def test_sixteen_bits_hold_exactly_65536_ids() -> None:
    assert token_dtype(65_536) == np.uint16 and token_dtype(65_537) == np.uint32
    assert int(np.array(65_535).astype(token_dtype(65_536))) == 65_535


def test_the_index_finds_every_document(corpus: PreparedCorpus) -> None:
    texts = {t for la in ("de", "en") for to in ("news", "parliament") for t in tiny_texts(la, to, 60)}
    found = set()
    for split in (corpus.train, corpus.validation):
        for row in split.documents().to_pylist():
            ids = split.shards[row["shard"]].tokens[row["start"] : row["start"] + row["tokens"]].tolist()
            assert ids[-1] == corpus.end_of_text and corpus.end_of_text not in ids[:-1]
            text = corpus.tokenizer.decode(ids[:-1])
            assert len(text.encode()) == row["text_bytes"]
            assert hashlib.sha256(text.encode()).hexdigest().startswith(row["hash"])
            found.add(text)
    assert found == texts


def test_token_bytes_count_what_each_id_stands_for(corpus: PreparedCorpus) -> None:
    assert corpus.token_bytes_V.tolist() == [1] * 256 + [0]
    assert corpus.token_bytes_V.dtype == np.int64


def test_the_vocabulary_is_known_from_the_configuration(tmp_path: Path) -> None:
    for number, tokenizer in enumerate(TOKENIZERS):
        corpus = prepare(tiny_data_config(tmp_path / str(number), tokenizer=tokenizer), progress=False)
        assert corpus.vocab_size == tokenizer.size == len(corpus.token_bytes_V)


def test_shards_cannot_be_written_to(corpus: PreparedCorpus) -> None:
    with pytest.raises(ValueError, match="read-only"):
        corpus.train.shards[0].tokens[0] = 1


def test_a_corpus_that_was_not_prepared_names_the_command(config: DataConfig) -> None:
    with pytest.raises(DataError, match=r"run `moe-study prepare data=tiny` first, with the same data\.\* settings"):
        open_corpus(config)


def test_shards_without_a_manifest_do_not_count(config: DataConfig, corpus: PreparedCorpus) -> None:
    (corpus.folder / MANIFEST).unlink()
    with pytest.raises(DataError, match="not prepared"):
        open_corpus(config)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": {}, "identity": 1, "fingerprint": ""}'])
def test_a_damaged_manifest_is_named(config: DataConfig, corpus: PreparedCorpus, content: str) -> None:
    (corpus.folder / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        open_corpus(config)


def test_every_missing_or_shortened_file_is_named(config: DataConfig, corpus: PreparedCorpus) -> None:
    names = sorted(p for p in corpus.folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    assert len(names) == 8 + 2 + 1  # shards, indexes, token_bytes.npy
    for path in names:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(DataError, match=rf"{path.name} is damaged \(\d+ bytes, expected \d+\)"):
            open_corpus(config)
        path.unlink()
        with pytest.raises(DataError, match=rf"{path.name} is missing"):
            open_corpus(config)
        path.write_bytes(whole)
    open_corpus(config, verify=True)


def test_the_fingerprint_cannot_be_taken_from_another_corpus(
    config: DataConfig, corpus: PreparedCorpus
) -> None:
    """A manifest whose hashes were edited no longer fits its own fingerprint."""
    path = corpus.folder / MANIFEST
    manifest = json.loads(path.read_text())
    first = next(name for name in manifest["files"] if name.endswith(".bin"))
    manifest["files"][first]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        open_corpus(config)


def test_a_manifest_whose_labels_were_changed_is_refused(config: DataConfig, corpus: PreparedCorpus) -> None:
    path = corpus.folder / MANIFEST
    text = path.read_text()
    swapped = text.replace('"de"', '"xx"').replace('"en"', '"de"').replace('"xx"', '"en"')
    assert swapped != text
    path.write_text(swapped)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        open_corpus(config)


def test_a_corpus_in_the_place_of_another_is_refused(
    config: DataConfig, corpus: PreparedCorpus, tmp_path: Path
) -> None:
    other = prepare(dataclasses.replace(config, validation_fraction=0.3), progress=False)
    shutil.rmtree(corpus.folder)
    other.folder.rename(corpus.folder)
    assert fingerprint(config) is None
    with pytest.raises(DataError, match=r"manifest\.json is damaged: it belongs to another corpus"):
        open_corpus(config)


def test_a_corpus_of_an_older_version_has_no_checksum_and_is_read(config: DataConfig, corpus: PreparedCorpus) -> None:
    path = corpus.folder / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["checksum"], manifest["read"]
    path.write_text(json.dumps(manifest))
    assert open_corpus(config).fingerprint == corpus.fingerprint


def test_labels_that_file_names_cannot_tell_apart_are_told_apart_by_the_fingerprint(tmp_path: Path) -> None:
    found = set()
    for label in ("C", "C++", "C#"):
        texts = tmp_path / label
        texts.mkdir()
        lines = [json.dumps({"text": text, "topic": label}) for text in tiny_texts("en", "news", 20)]
        (texts / "a.jsonl").write_text("\n".join(lines))
        config = DataConfig("labels", "local_files", {"path": str(texts)}, TokenizerConfig("bytes"), 0.3, str(tmp_path))
        found.add(prepare(config, progress=False).fingerprint)
    assert len(found) == 3


def test_the_fingerprint_is_known_without_opening_and_follows_the_texts_not_their_place(
    config: DataConfig, tmp_path: Path
) -> None:
    assert fingerprint(config) is None
    opened = prepare(config, progress=False)
    assert fingerprint(config) == opened.fingerprint
    shutil.copytree(tmp_path / "texts", tmp_path / "elsewhere")
    moved = dataclasses.replace(config, options={"path": str(tmp_path / "elsewhere")})
    assert corpus_folder(moved) != corpus_folder(config), "two folders of texts live side by side"
    assert prepare(moved, progress=False).fingerprint == opened.fingerprint
    with open(tmp_path / "elsewhere" / "de-news.jsonl", "a") as handle:
        handle.write('{"text": "Neu."}\n')
    assert prepare(moved, progress=False).fingerprint == fingerprint(moved) != opened.fingerprint


def test_options_at_their_defaults_may_be_left_out(config: DataConfig) -> None:
    named = {"pattern": "**/*", "text_field": "text", "separator": None, "folders": []}
    assert corpus_folder(dataclasses.replace(config, options={**config.options, **named})) == corpus_folder(config)


def test_the_root_is_no_part_of_the_identity(config: DataConfig, corpus: PreparedCorpus, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(config, root=str(tmp_path / "elsewhere"))
    assert prepare(elsewhere, progress=False).fingerprint == corpus.fingerprint


def test_the_table_has_a_row_for_every_shard(corpus: PreparedCorpus) -> None:
    rows = corpus.table()
    assert [(r["split"], r["language"], r["topic"]) for r in rows[:3]] == [
        ("train", "de", "news"),
        ("train", "de", "parliament"),
        ("train", "en", "news"),
    ]
    assert sum(r["tokens"] for r in rows if r["split"] == "train") == corpus.train.tokens
    assert sum(r["documents"] for r in rows) == 240
