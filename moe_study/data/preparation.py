"""prepare: from a configuration to a corpus on disk, in stages that survive being killed.

    open the recipe's source -> scatter its documents into buckets -> train or fetch the tokenizer
    -> encode bucket by bucket -> shards -> manifest

Everything before the shards lies in the corpus's folder under work/ and is removed at the end. A finished
stage leaves a mark there and is not done again. Two processes that prepare the same corpus take turns.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from moe_study.data.buckets import bucket_count, bucket_path, read_bucket, scatter
from moe_study.data.documents import Document
from moe_study.data.encode import assemble, encode_bucket, encoded_bucket, write_hashed
from moe_study.data.locks import locked
from moe_study.data.places import data_root, downloads_in
from moe_study.data.recipes import Source, recipe_of
from moe_study.data.shards import (
    ATTRIBUTION,
    MANIFEST,
    PreparedCorpus,
    checksum_of,
    corpus_folder,
    fingerprint_of,
    identity,
    open_corpus,
    read_manifest,
    token_dtype,
)
from moe_study.data.tokenizers import Tokenizer, gpt2_ranks, load_tokenizer, train_bpe
from moe_study.design.config import DataConfig
from moe_study.design.data_options import check_data_config, read_options
from moe_study.errors import DataError
from moe_study.files import clear_os_errors, write_bytes_atomic, write_json_atomic, write_text_atomic

_WORK_FORMAT = 2  # of the folder work/; goes up when an older version's unfinished one cannot be gone on with
_TRAINING_BYTES = 100_000_000  # of the training split that a BPE is trained on: its first documents by hash


def prepare(config: DataConfig, *, progress: bool = True) -> PreparedCorpus:
    """Make the corpus of this configuration ready, or find it ready, and open it.

    A corpus whose files are damaged, or whose local sources were written to, is made again. Raises ConfigError for
    options without meaning, and DataError for what could not be downloaded, read or written.
    """
    check_data_config(config)
    if ready := _ready(config, progress):
        return ready
    folder = corpus_folder(config)

    def on_wait() -> None:
        _say(f"another process is preparing {folder.name}; waiting for it", progress)

    with locked(folder.parent / f".{folder.name}.lock", on_wait):
        if not _ready(config, progress=False):
            with clear_os_errors(folder, DataError):
                _build(config, folder, progress)
    return open_corpus(config)


def _ready(config: DataConfig, progress: bool) -> PreparedCorpus | None:
    """The corpus if it is whole and its sources are what they were."""
    folder = corpus_folder(config)
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return None
        corpus = open_corpus(config)
    except DataError as error:
        _say(f"preparing again, since {error}", progress)
        return None
    try:
        stamp = recipe_of(config.recipe).stamp(read_options(config), data_root(config))
    except DataError as error:  # sources that are gone do not spoil what was made of them
        _say(f"{folder.name} is as it was prepared before; its sources are not looked at, since {error}", progress)
        return corpus
    if stamp != manifest["stamp"]:
        _say(f"preparing {folder.name} again, since its sources changed", progress)
        return None
    return corpus


def _build(config: DataConfig, folder: Path, progress: bool) -> None:
    recipe = recipe_of(config.recipe)
    stamp = recipe.stamp(read_options(config), data_root(config))
    work = folder / "work"
    begun = {"stamp": stamp, "format": _WORK_FORMAT}
    if read_mark(work / "begun.json") != begun:  # of other sources, of another version, or none
        shutil.rmtree(work, ignore_errors=True)
        write_json_atomic(work / "begun.json", begun)
    gathered = _gather(config, work, progress)
    tokenizer, tokenizer_name = _tokenizer(config, work, gathered["buckets"], progress)
    buckets = _encode(config, work, gathered, tokenizer, progress)

    # From here on the old corpus, if there was one, is gone; until the manifest stands there is none.
    with contextlib.suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    for name in ("train", "validation"):
        shutil.rmtree(folder / name, ignore_errors=True)
    dtype = token_dtype(tokenizer.vocab_size)
    made = assemble(buckets, folder, dtype)
    made["files"]["token_bytes.npy"] = write_hashed(folder / "token_bytes.npy", [_token_bytes(tokenizer)])
    for beside in (tokenizer_name, ATTRIBUTION):
        if beside and (work / beside).exists():
            made["files"][beside] = write_hashed(folder / beside, [(work / beside).read_bytes()])
    shards = [shard for split in made["shards"].values() for shard in split]
    kept = sum(shard["documents"] for shard in shards)
    manifest: dict[str, Any] = {
        "name": config.name,
        "identity": identity(config),
        "stamp": stamp,
        "pins": gathered["pins"],
        "read": {**gathered["read"], "duplicates": gathered["documents"] - kept},
        "languages": sorted({shard["language"] for shard in shards}),
        "topics": sorted({shard["topic"] for shard in shards}),
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "dtype": dtype.str,
        **made,
    }
    manifest["fingerprint"] = fingerprint_of(manifest)
    manifest["checksum"] = checksum_of(manifest)
    write_json_atomic(folder / MANIFEST, manifest)
    shutil.rmtree(work, ignore_errors=True)


def _gather(config: DataConfig, work: Path, progress: bool) -> dict[str, Any]:
    """Fetch the sources and scatter their documents; returns {"buckets", "documents", "bytes", "pins", "read"}."""
    mark = work / "gathered.json"
    if (done := read_mark(mark)) is not None and "read" in done:
        return done
    shutil.rmtree(work / "documents", ignore_errors=True)
    source: Source = recipe_of(config.recipe).open(read_options(config), data_root(config), progress)
    count = bucket_count(source.approximate_bytes)
    documents = _counted(source.documents(), source.approximate_bytes, config.name, progress)
    number, size = scatter(documents, work / "documents", count)
    if number == 0:
        raise DataError(f"the corpus {config.name} has no text{source.tally.in_brackets()}; check data.options")
    if source.attribution is not None:
        write_text_atomic(work / ATTRIBUTION, source.attribution())
    read = {**source.tally.plain(), "documents": number, "bytes": size}
    gathered = {"buckets": count, "documents": number, "bytes": size, "pins": source.pins, "read": read}
    write_json_atomic(mark, gathered)
    return gathered


def _counted(documents: Iterable[Document], total: int, name: str, progress: bool) -> Iterator[Document]:
    bar = _bar(f"{name}: reading", total, progress)
    with bar:
        for document in documents:
            bar.update(len(document.text))
            yield document
        bar.total = bar.n  # known only now
        bar.refresh()


def _tokenizer(config: DataConfig, work: Path, buckets: int, progress: bool) -> tuple[Tokenizer, str | None]:
    """The tokenizer and the name of its file in `work`, made if it is not there."""
    name = config.tokenizer.file_name
    if name is not None and not (work / name).exists():
        if config.tokenizer.kind == "gpt2":
            content = gpt2_ranks(downloads_in(data_root(config)), progress=progress)
        else:
            _say(f"{config.name}: training a BPE of {config.tokenizer.size} tokens", progress)
            texts = _training_texts(config, work, buckets)
            bars = progress and sys.stderr.isatty()  # the trainer's own bars need a terminal
            content = train_bpe(texts, config.tokenizer.size, progress=bars).encode()
        write_bytes_atomic(work / name, content)
    return load_tokenizer(config.tokenizer, work), name


def _training_texts(config: DataConfig, work: Path, buckets: int) -> Iterator[str]:
    left = _TRAINING_BYTES
    for bucket in range(buckets):
        for hashed in read_bucket(bucket_path(work / "documents", bucket)):
            if not hashed.is_validation(config.validation_fraction):
                yield hashed.document.text
                left -= len(hashed.document.text.encode())
                if left < 0:
                    return


def _encode(
    config: DataConfig, work: Path, gathered: dict[str, Any], tokenizer: Tokenizer, progress: bool
) -> list[Any]:
    """Encode the buckets that are not encoded yet."""
    targets = [encoded_bucket(work / "encoded", bucket) for bucket in range(gathered["buckets"])]
    with _bar(f"{config.name}: encoding", gathered["bytes"], progress) as bar:
        for bucket, target in enumerate(targets):
            if not target.is_done:
                source = bucket_path(work / "documents", bucket)
                encode_bucket(source, target, tokenizer, config.validation_fraction, bar.update)
    return targets


def _token_bytes(tokenizer: Tokenizer) -> bytes:
    lengths = np.array([len(piece) for piece in tokenizer.token_bytes()], np.int64)
    content = io.BytesIO()
    np.save(content, lengths)
    return content.getvalue()


def read_mark(path: Path) -> dict[str, Any] | None:
    """A finished stage's record, or None."""
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read


def _bar(label: str, total: int, progress: bool) -> "tqdm[Any]":
    return tqdm(desc=label, total=total, unit="B", unit_scale=True, disable=not progress, mininterval=0.3)


def _say(sentence: str, progress: bool) -> None:
    if progress:
        print(sentence, file=sys.stderr, flush=True)
