"""Overlap with training text, against a search for every run of tokens."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moe_study.data.probes import Probe
from moe_study.data.probes import overlap as module
from moe_study.data.probes.overlap import RUN_LENGTH, hashes, kept_overlap, overlap


def corpus(*shards: np.ndarray, fingerprint: str = "c" * 64) -> Any:
    train = SimpleNamespace(shards=[SimpleNamespace(tokens=tokens) for tokens in shards])
    return SimpleNamespace(train=train, fingerprint=fingerprint)


def test_runs_of_tokens_found_in_training_text_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 100)  # runs lie across blocks, too
    draw = np.random.default_rng(0)
    train = draw.integers(0, 50, 1000).astype(np.uint16)
    lengths = (40, 31, 200, 90, 33)
    start_D1 = np.concatenate([[0], np.cumsum(lengths)])
    token_T = draw.integers(0, 50, start_D1[-1])
    token_T[80:140] = train[70:130]  # 60 tokens inside the third document
    token_T[0:31] = train[500:531]  # one too few
    token_T[271:361] = np.concatenate([train[600:640], train[0:50]])  # all of the fourth, in two pieces
    found = overlap(Probe("p", "f", token_T, start_D1), corpus(train[:300], train[300:]))
    text = [train[:300].tolist(), train[300:].tolist()]
    inside = np.zeros(len(token_T), bool)
    documents = set()
    for document in range(len(lengths)):
        for start in range(start_D1[document], start_D1[document + 1] - RUN_LENGTH + 1):
            run = token_T[start : start + RUN_LENGTH].tolist()
            if any(run == t[i : i + RUN_LENGTH] for t in text for i in range(len(t) - RUN_LENGTH + 1)):
                inside[start : start + RUN_LENGTH] = True
                documents.add(document)
    assert documents == {2, 3} and inside.sum() == 150
    assert (found.documents, found.of_documents, found.training_tokens) == (2, 4, 1000)
    assert found.token_share == pytest.approx(inside.mean())
    assert "2 of 4 documents" in found.sentence


def test_without_long_documents_or_training_text_nothing_is_shared() -> None:
    short = Probe("p", "f", np.arange(10), np.array([0, 10]))
    assert overlap(short, corpus(np.arange(100))).documents == 0
    long = Probe("p", "f", np.arange(100), np.array([0, 100]))
    assert overlap(long, corpus()).token_share == 0


def test_it_is_counted_once_for_each_probe_and_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(module, "overlap", lambda *both: counted.append("once") or overlap(*both))
    token_T = np.arange(100)
    probe, other = Probe("p", "f" * 64, token_T, np.array([0, 100])), Probe("p", "g" * 64, token_T, np.array([0, 100]))
    first, second = corpus(token_T), corpus(np.zeros(100, int), fingerprint="d" * 64)
    for _ in range(2):
        assert kept_overlap(probe, first, tmp_path) == overlap(probe, first)
        assert kept_overlap(probe, second, tmp_path) == overlap(probe, second)
        assert kept_overlap(other, first, tmp_path).documents == 1
    assert len(counted) == 3
    for path in (tmp_path / "probes").iterdir():
        path.write_text("{ not json", encoding="utf-8")
    assert kept_overlap(probe, first, tmp_path).documents == 1 and len(counted) == 4
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert kept_overlap(probe, first, tmp_path / "file").documents == 1


def test_equal_runs_alone_have_equal_hashes() -> None:
    token_T = np.random.default_rng(1).integers(0, 3, 5000)
    token_T[4000:4040] = token_T[100:140]
    runs: dict[tuple[int, ...], set[int]] = {}
    for start, hashed in enumerate(hashes(token_T)):
        runs.setdefault(tuple(token_T[start : start + RUN_LENGTH]), set()).add(int(hashed))
    assert len(hashes(token_T)) == 5000 - RUN_LENGTH + 1
    assert all(len(found) == 1 for found in runs.values()) and len(set.union(*runs.values())) == len(runs)
