"""Traces on disk that are whole, cut short, or hold what does not fit together."""

import json
from pathlib import Path

import numpy as np
import pytest

from moe_study.runs.traces import RoutesPart, Trace, TraceIdentity, all_traces, find_trace, write_trace

IDENTITY = TraceIdentity("key", "weights", "brown", "0123456789abcdef0123")
NAN_N = np.full(5, np.nan)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Two documents of three and two tokens; the last token has no pick."""
    with write_trace(tmp_path, IDENTITY) as writer:
        labels = {"topic": (np.array([0, 1]), ("law", "news"))}
        parts = {"part of speech": (np.array([0, -1, 0, 0, 0]), ("noun",))}
        writer.add_probe(np.array([5, 6, 7, 8, 9]), np.array([0, 3, 5]), labels, parts)
        writer.add_loss(np.ones(5))
        writer.add_layer(1, 3, 1)
        count_N, expert_P = np.array([1, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 1])
        writer.add_routes(1, RoutesPart(count_N, expert_P, np.ones(5), np.ones(5, bool), NAN_N, NAN_N))
        writer.facts["window"] = 8
    (found,) = all_traces(tmp_path)
    return found


def test_a_whole_trace_is_found_by_what_it_was_made_from(tmp_path, trace):
    assert find_trace(tmp_path, IDENTITY) is not None
    assert find_trace(tmp_path, TraceIdentity("key", "others", "brown", IDENTITY.probe_fingerprint)) is None
    assert trace.layer(1)["start_T1"].tolist() == [0, 1, 2, 3, 5, 5]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}', b'{"format": 1, "files": {}, "layers": []}'],
)
def test_a_damaged_manifest_counts_as_absent(tmp_path, trace, content):
    (trace.folder / "manifest.json").write_bytes(content)
    assert find_trace(tmp_path, IDENTITY) is None and list(all_traces(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("identity", None), ("identity", {"run": "key"}), ("layers", [{}]), ("layers", 3), ("window", "DEL")),
        *(("document_labels", None), ("document_labels", [["topic", ["law"]]]), ("files", {"token": ["<u1", -5]})),
        *(("token_labels", [["part of speech", []]]), ("files", {"token": "x"}), ("files", [1])),
    ],
)
def test_a_manifest_whose_fields_say_something_else_counts_as_absent(tmp_path, trace, name, value):
    changed = {**trace.manifest, name: value}
    if value == "DEL":
        del changed[name]
    (trace.folder / "manifest.json").write_text(json.dumps(changed))
    assert find_trace(tmp_path, IDENTITY) is None and list(all_traces(tmp_path)) == []


@pytest.mark.parametrize("name", ["start", "layer01-expert", "layer01-count", "label-document-0", "label-token-0"])
def test_numbers_of_what_is_not_there_count_as_damage(tmp_path, trace, name):
    """As long as the file should be, and written over."""
    path = trace.folder / f"{name}.bin"
    path.write_bytes(b"\x7f" * path.stat().st_size)
    assert find_trace(tmp_path, IDENTITY) is None


@pytest.mark.parametrize("change", ["cut", "gone", "folder"])
def test_a_file_that_is_cut_short_or_missing_counts_as_damage(tmp_path, trace, change):
    path = trace.folder / "loss.bin"
    content = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(content[:-1])
    elif change == "folder":
        path.mkdir()
    assert find_trace(tmp_path, IDENTITY) is None
