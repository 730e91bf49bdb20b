"""How much of a probe stands word for word in what a run was trained on.

Shape suffixes: T tokens, W runs of tokens.
"""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from moe_study.data.mixing import splitmix64
from moe_study.data.probes.base import Array, Probe
from moe_study.data.shards import PreparedCorpus
from moe_study.errors import StudyError
from moe_study.files import read_json, write_json_atomic

FORMAT = 1  # goes up when the same texts are counted otherwise
DIGITS = 16  # of each fingerprint, in a file's name
RUN_LENGTH = 32  # tokens in a row that count as the same text: 70 bytes under a small vocabulary, 130 under GPT-2's
MOST_TOKENS = 100_000_000  # of the training text that are looked at; some seconds
_BLOCK = 1 << 20
_TABLE_BITS = 24
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Overlap:
    """What was found; documents shorter than RUN_LENGTH tokens are not looked at."""

    documents: int  # of the probe with a run of RUN_LENGTH tokens that training text has, too
    of_documents: int
    token_share: float  # tokens of the probe that lie in such a run
    training_tokens: int  # looked at

    @property
    def sentence(self) -> str:
        """For a reader."""
        return (
            f"{self.documents:,} of {self.of_documents:,} documents share {RUN_LENGTH} tokens in a row with the"
            f" training text ({self.token_share:.2%} of all tokens; {self.training_tokens:,} training tokens looked at)"
        )


def overlap(probe: Probe, corpus: PreparedCorpus) -> Overlap:
    """Compare a probe with the training split of a corpus that is tokenized alike."""
    lengths_D = np.diff(probe.start_D1)
    hash_W = hashes(probe.token_T)
    start_W = np.concatenate(
        [np.arange(s, s + max(0, n - RUN_LENGTH + 1)) for s, n in zip(probe.start_D1, lengths_D, strict=False)]
    ).astype(np.int64)
    wanted, place_W = np.unique(hash_W[start_W] if len(start_W) else np.empty(0, np.uint64), return_inverse=True)
    found, seen = _found(wanted, corpus)
    shared_W = start_W[found[place_W]] if len(start_W) else start_W
    inside_T1 = np.zeros(len(probe.token_T) + 1, np.int64)
    np.add.at(inside_T1, shared_W, 1)
    np.add.at(inside_T1, shared_W + RUN_LENGTH, -1)
    document_W = np.searchsorted(probe.start_D1, shared_W, side="right") - 1
    return Overlap(
        documents=len(np.unique(document_W)),
        of_documents=int((lengths_D >= RUN_LENGTH).sum()),
        token_share=float((inside_T1.cumsum()[:-1] > 0).mean()) if len(probe.token_T) else 0.0,
        training_tokens=seen,
    )


def kept_overlap(probe: Probe, corpus: PreparedCorpus, data_root: Path) -> Overlap:
    """The same, counted once for all runs and kept in ROOT/probes/overlap-PROBE-CORPUS.json, if that can be written."""
    path = data_root / "probes" / f"overlap-{probe.fingerprint[:DIGITS]}-{corpus.fingerprint[:DIGITS]}.json"
    names = {"probe": probe.fingerprint, "corpus": corpus.fingerprint, "format": FORMAT}
    with contextlib.suppress(StudyError, TypeError, KeyError):  # a damaged file is made anew
        kept = read_json(path)
        if kept is not None and kept["of"] == names:
            return Overlap(**kept["overlap"])
    found = overlap(probe, corpus)
    with contextlib.suppress(StudyError, OSError):
        write_json_atomic(path, {"of": names, "overlap": asdict(found)})
    return found


def _found(wanted: Array, corpus: PreparedCorpus) -> tuple[Array, int]:
    """Which of the sorted hashes occur in the training split, and how many of its tokens were looked at."""
    found, seen = np.zeros(len(wanted), bool), 0
    # Nearly all hashes of the training text are not wanted; a table of their first bits says so of most of them.
    table = np.zeros(1 << _TABLE_BITS, bool)
    table[_first_bits(wanted)] = True
    for shard in corpus.train.shards:
        for start in range(0, len(shard.tokens), _BLOCK):
            if seen >= MOST_TOKENS or not len(wanted):
                return found, seen
            block_T = np.asarray(shard.tokens[start : start + _BLOCK + RUN_LENGTH - 1])
            hash_W = hashes(block_T)
            maybe_W = hash_W[table[_first_bits(hash_W)]]
            place_W = np.minimum(np.searchsorted(wanted, maybe_W), len(wanted) - 1)
            found[place_W[wanted[place_W] == maybe_W]] = True
            seen += min(_BLOCK, len(shard.tokens) - start)
    return found, seen


def _first_bits(hash_W: Array) -> Array:
    return (hash_W >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)


def hashes(token_T: Array) -> Array:
    """A hash of every RUN_LENGTH tokens in a row: polynomials modulo 2^64, by doubling their length."""
    hash_W, factor, length = splitmix64(token_T.astype(np.uint64)), _BASE, 1
    with np.errstate(over="ignore"):
        while length < RUN_LENGTH:
            if len(hash_W) <= length:
                return np.empty(0, np.uint64)
            hash_W = hash_W[:-length] * factor + hash_W[length:]
            factor, length = factor * factor, 2 * length
    return hash_W
