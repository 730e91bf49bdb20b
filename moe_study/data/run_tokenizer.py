"""The tokenizer in a run's folder: with it the folder stands alone, wherever it is copied to."""

import hashlib

from moe_study.data.download import sha256_of
from moe_study.data.shards import PreparedCorpus, corpus_fingerprint, open_corpus
from moe_study.data.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer
from moe_study.design.config import DataConfig
from moe_study.errors import DataError
from moe_study.files import write_bytes_atomic
from moe_study.runs.folder import RunFolder


def keep_tokenizer(corpus: PreparedCorpus, folder: RunFolder) -> None:
    """Copy the corpus's tokenizer into the run's folder, unless it lies there. Plain bytes need no file."""
    kept = folder.tokenizer_file(corpus.tokenizer_config)
    if kept is not None:
        content = (corpus.folder / kept.name).read_bytes()
        if not (kept.exists() and kept.read_bytes() == content):
            write_bytes_atomic(kept, content)
        folder.add_provenance(tokenizer_sha256=hashlib.sha256(content).hexdigest())


def load_run_tokenizer(folder: RunFolder) -> Tokenizer:
    """The tokenizer that a run was trained with, from its folder alone.

    Runs of older versions hold none: theirs comes from the corpus, if it is still the one that they were trained
    on. DataError where neither has it, or where its file is damaged.
    """
    config = folder.read_config()
    if config.task != "language":
        raise DataError(f"{folder.path} was trained on {config.data.name}, which needs no tokenizer")
    kept = folder.tokenizer_file(config.data.tokenizer)
    if kept is None:
        return ByteTokenizer()
    if kept.exists():
        expected = (folder.provenance() or {}).get("tokenizer_sha256")
        if expected is not None and sha256_of(kept) != expected:
            raise DataError(f"{kept} is damaged: it is not the tokenizer of this run; copy that of its corpus over it")
        return load_tokenizer(config.data.tokenizer, folder.path)
    return _from_corpus(folder, config.data)


def _from_corpus(folder: RunFolder, config: DataConfig) -> Tokenizer:
    trained_on = (folder.provenance() or {}).get("data_fingerprint")
    if trained_on is None or corpus_fingerprint(config) != trained_on:
        raise DataError(
            f"{folder.path} holds no {config.tokenizer.file_name}, and the data that it was trained on is not in "
            f"{config.root}; copy {config.tokenizer.file_name} of its corpus into it, or prepare that corpus again"
        )
    return open_corpus(config).tokenizer
