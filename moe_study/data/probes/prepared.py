"""From a probe's texts to tokens of a run's tokenizer, kept as ROOT/probes/NAME-FINGERPRINT.npz."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from moe_study.data.documents import text_hash
from moe_study.data.probes import brown, local_files, mmlu, newsgroups, wiki_topics
from moe_study.data.probes.base import (
    Labels,
    Probe,
    ProbeDocument,
    ProbeRecipe,
    encode_documents,
    tokenizer_fingerprint,
)
from moe_study.data.tokenizers import Tokenizer
from moe_study.errors import ConfigError, DataError
from moe_study.files import atomic_file

FORMAT = 1  # goes up when the same texts give other tokens, or files of older versions cannot be read
DEFAULT_PROBE = "wiki_topics"
DEFAULT_TOKENS = 200_000
PROBES: dict[str, ProbeRecipe] = {
    "wiki_topics": wiki_topics.RECIPE,
    "brown": brown.RECIPE,
    "newsgroups": newsgroups.RECIPE,
    "mmlu": mmlu.RECIPE,
    "local_files": local_files.RECIPE,
}
_CHUNK = 256  # documents encoded at once


def check_probe(name: str, tokens: int | None) -> None:
    """ConfigError for an unknown name or a number of tokens below 1."""
    if name not in PROBES:
        raise ConfigError(f"there is no probe {name}; choose one of {', '.join(PROBES)}")
    if tokens is not None and tokens < 1:
        raise ConfigError(f"a probe of {tokens} tokens holds nothing; ask for more")


def prepare_probe(
    name: str,
    tokenizer: Tokenizer,
    data_root: Path,
    *,
    path: Path | None = None,
    tokens: int | None = DEFAULT_TOKENS,
    progress: bool = True,
) -> Probe:
    """The probe as `tokenizer` spells it, fetched and encoded unless it is there already.

    Of each combination of labels documents are taken in turn, in an order that only their texts decide, until there
    are `tokens` tokens (None: all documents); so rare domains are as well covered as frequent ones. Duplicates are
    left out. `path` is the folder of local_files.
    Errors: ConfigError for an unknown name or a number of tokens below 1, DataError for what cannot be fetched or read.
    """
    check_probe(name, tokens)
    source = PROBES[name].open(path, data_root, progress)
    texts = (name, PROBES[name].version, source.fingerprint, source.word_label)
    parts = (FORMAT, texts, tokenizer_fingerprint(tokenizer), tokens)
    fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()
    kept = data_root / "probes" / f"{name}-{fingerprint[:16]}.npz"
    if (probe := _read(kept, name, fingerprint)) is not None:
        return probe
    documents = _chosen(source.documents(), tokenizer, tokens)
    if not documents:
        raise DataError(f"the probe {name} holds no text; look at what it was made from")
    probe = encode_documents(name, fingerprint, documents, tokenizer, source.word_label, source.notes)
    _write(kept, probe)
    return probe


def _chosen(documents: Iterable[ProbeDocument], tokenizer: Tokenizer, tokens: int | None) -> list[ProbeDocument]:
    """Documents in turn from every combination of labels, each once, up to the one that fills the budget."""
    by_hash = {text_hash(document.text): document for document in documents if document.text.strip()}
    place: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for hashed, document in sorted(by_hash.items()):
        cell = tuple(document.labels.values())
        ranked.append((place[cell], cell, hashed, document))
        place[cell] += 1
    ordered = [document for _, _, _, document in sorted(ranked, key=lambda entry: entry[:3])]
    return ordered if tokens is None else list(_up_to(ordered, tokenizer, tokens))


def _up_to(documents: Sequence[ProbeDocument], tokenizer: Tokenizer, tokens: int) -> Iterator[ProbeDocument]:
    iterator, total = iter(documents), 0
    while chunk := list(islice(iterator, _CHUNK)):
        for document, ids in zip(chunk, tokenizer.encode_batch([d.text for d in chunk]), strict=True):
            yield document
            total += len(ids)
            if total >= tokens:
                return


def _write(path: Path, probe: Probe) -> None:
    about = {
        "fingerprint": probe.fingerprint,
        "notes": probe.notes,
        "document_labels": [(name, values) for name, (_, values) in probe.document_labels.items()],
        "token_labels": [(name, values) for name, (_, values) in probe.token_labels.items()],
    }
    arrays = {"token_T": probe.token_T.astype(np.uint32), "start_D1": probe.start_D1}
    for kind, labels in (("document", probe.document_labels), ("token", probe.token_labels)):
        arrays |= {f"{kind}_{n}": codes for n, (codes, _) in enumerate(labels.values())}
    with atomic_file(path, DataError) as handle:
        np.savez(handle, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def _read(path: Path, name: str, fingerprint: str) -> Probe | None:
    """What was kept; None where there is nothing whole."""
    try:
        with np.load(path) as file:
            about = json.loads(file["about"].tobytes())
            if about["fingerprint"] != fingerprint:
                return None

            def labels(kind: str) -> Labels:
                named = about[f"{kind}_labels"]
                return {label: (file[f"{kind}_{n}"], tuple(values)) for n, (label, values) in enumerate(named)}

            probe = Probe(name, fingerprint, file["token_T"].astype(np.int64), file["start_D1"])
            return replace(
                probe,
                document_labels=labels("document"),
                token_labels=labels("token"),
                notes=tuple(about["notes"]),
            )
    except Exception:  # numpy and zipfile raise many kinds for a damaged file, which is then made anew
        return None
