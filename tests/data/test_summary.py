import dataclasses
import json
from typing import Any

import pytest

from moe_study.data import PreparedCorpus, TrainSampler, prepare, summary, unused_domains, validation_batches
from moe_study.design.config import DataConfig, TokenizerConfig

TOPICS = 38


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """One topic of long texts and 37 of short ones, beside what prepare leaves out."""
    folder, root = tmp_path_factory.mktemp("topics"), tmp_path_factory.mktemp("data")
    records: list[Any] = [{"text": f"{n} " + "long " * 100, "topic": "00"} for n in range(30)]
    records += [{"text": f"short {n} of {t}", "topic": f"{t:02d}"} for t in range(1, TOPICS) for n in range(4)]
    records += [{"text": " "}, {"text": None}, records[0], records[0]]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    (folder / "notes.md").write_text("not asked for")
    (folder / ".hidden.txt").write_text("hidden")
    options = {"path": str(folder), "language": "en"}
    config = DataConfig("topics", "local_files", options, TokenizerConfig("bytes"), 0.3, str(root))
    return prepare(config, progress=False)


def test_prepare_ends_with_what_was_read_and_what_was_not(corpus: PreparedCorpus) -> None:
    lines = list(summary(corpus))
    assert lines[:5] == [
        f"read: 1 files, {30 + 37 * 4 + 2} documents, {corpus.read['bytes']:,} bytes of text",
        "left out: 2 duplicates",
        "left out: 1 hidden (.hidden.txt)",
        "left out: 1 not .txt, .jsonl or .parquet (notes.md)",
        "left out: 2 without text (a.jsonl line 179, a.jsonl line 180)",
    ]


def test_it_counts_documents_and_tokens_by_split_and_domain(corpus: PreparedCorpus) -> None:
    header, first, *_, more, total = list(summary(corpus))[5:]
    assert header.split() == ["language", "topic", "train", "documents", "tokens", "validation", "documents", "tokens"]
    train, validation = corpus.train.shards[0], corpus.validation.shards[0]
    numbers = [train.documents, len(train.tokens), validation.documents, len(validation.tokens)]
    assert first.split() == ["en", "00", *(f"{number:,}" for number in numbers)]
    assert more == "... and 18 more"
    assert total.split()[1:] == [
        f"{n:,}"
        for split in (corpus.train, corpus.validation)
        for n in (sum(shard.documents for shard in split.shards), split.tokens)
    ]


@pytest.mark.parametrize("context", [4, 16, 64, 128])
def test_the_domains_named_as_unused_are_those_that_no_batch_holds(corpus: PreparedCorpus, context: int) -> None:
    sampler = TrainSampler(corpus.train, context, 8, seed=0)
    steps = -(-sampler.windows_per_epoch // 8)
    trained = {int(topic) for step in range(steps) for topic in sampler.batch(step).topic_B}
    judged = {int(t) for batch in validation_batches(corpus.validation, context, 8, 10**9) for t in batch.topic_B}
    said = {line.split(" are never ")[1].split(",")[0]: line for line in unused_domains(corpus, context)}
    for fate, used in (("trained on", trained), ("judged", judged)):
        left = [topic for number, topic in enumerate(corpus.topics) if number not in used]
        if not left:
            assert fate not in said
            continue
        assert f"{len(left)} of {TOPICS} domains are never {fate}" in said[fate]
        assert f"less than the {context + 1} tokens that model.context={context} asks for" in said[fate]
        assert all(f"en/{topic}" in said[fate] for topic in left[:20])


def test_what_is_too_short_at_a_context_is_told_by_prepare(corpus: PreparedCorpus) -> None:
    trained, judged = list(summary(corpus, [128]))[-2:]
    assert trained.startswith("topics: 37 of 38 domains are never trained on")
    assert judged.startswith("topics: 37 of 38 domains are never judged")
    assert trained.endswith("give more text, join domains, or lower model.context")


def test_a_corpus_of_an_older_version_is_told_about_as_far_as_it_knows(corpus: PreparedCorpus) -> None:
    first, *_ = summary(dataclasses.replace(corpus, read=None))
    assert first.startswith("language")
