"""Traces against the model's own decisions, recorded by hooks while it reads one window of one document at a time."""

import dataclasses
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe_study.analysis.specialisation.layer_trace import LayerTrace, assignments
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import DataError, StudyError
from moe_study.model.moe.routing.router import ScoringRouter
from moe_study.model.transformer import Transformer
from moe_study.posthoc import trace as module
from moe_study.posthoc.trace import Tracer, probe_of, trace_run, windows
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace
from moe_study.training.models import load_model
from tests.part import every
from tests.posthoc.runs import CONTEXT, run_config, save_weights, small_probe, untrained_run

POINTS: dict[str, dict[str, Any]] = {
    "top-1": {"k": 1},
    "top-2 sigmoid": {"k": 2, "gate": "sigmoid"},
    "top-2 with capacity": {"k": 2, "capacity": {"factor": 0.5, "group": "sequence"}},
    "threshold": {"selection": "threshold", "threshold": 0.5},
    "threshold with capacity": {"selection": "threshold", "threshold": 0.6, "capacity": {"factor": 1.0}},
    "all": {"selection": "all"},
    "expert choice": {"selection": "expert_choice", "k": 2},
    "sequence mean": {"unit": "sequence", "context": "unit_mean", "k": 2, "gate": "double_softmax"},
    "prefix": {"unit": "sequence", "context": "prefix", "prefix_length": 5},
    "segments": {"unit": "segment", "segment_length": 5, "context": "previous_segment", "k": 2},
    "global": {"k": 2, "scope": "global"},
    "every second layer": {"layers": "every_second"},
    "hash": {"router": "hash", "k": 2},
    "label": {"router": "label", "unit": "sequence", "context": "label", "k": 1},
    "merge by segment": {"selection": "merge", "unit": "segment", "segment_length": 5, "context": "previous_segment"},
    "merge by sequence, global": {"selection": "merge", "unit": "sequence", "context": "unit_mean", "scope": "global"},
    "soft": {"selection": "soft"},
    "soft prefix, 2 slots": {"selection": "soft", "soft": {"form": "prefix", "slots_per_expert": 2}},
    "soft lagged": {"selection": "soft", "soft": {"form": "chunk_lagged", "chunk_length": 4}},
    "many experts": {"num_experts": 300, "k": 3, "expert_size": 4},
}


def run_of(tmp_path: Path, name: str) -> RunFolder:
    return untrained_run(tmp_path / "runs", from_plain(Routing, POINTS[name]))


def dense_weights(trace: Trace, layer: int) -> np.ndarray:
    """Gate weights of what was kept, (T, E)."""
    arrays = trace.layer(layer)
    weight_TE = np.zeros((len(arrays["token_T"]), arrays["experts"]))
    token_P = np.repeat(np.arange(len(weight_TE)), np.diff(arrays["start_T1"]))
    kept_P = np.asarray(arrays["kept_P"])
    weight_TE[token_P[kept_P], arrays["expert_P"][kept_P]] = arrays["weight_P"][kept_P]
    return weight_TE


class Recorder:
    """Weights of each mixture layer for every token of one forward pass, (L, E), by hooks on what decides."""

    def __init__(self, model: Transformer) -> None:
        self.by_layer: dict[int, np.ndarray] = {}
        self.logits: dict[int, np.ndarray] = {}
        for number, block in enumerate(model.blocks):
            for name, keep in (("decider", self._plan), ("gates", self._merge), ("scores", self._soft)):
                part = getattr(block.ffn, name, None)
                if part is not None:
                    part.register_forward_hook(lambda _m, _i, out, n=number, k=keep: k(n, out))
                    router = getattr(part, "router", None)
                    if isinstance(router, ScoringRouter):
                        router.register_forward_hook(lambda _m, _i, out, n=number: self._logits(n, out))
        self.model = model

    def _plan(self, layer: int, dispatch: Any) -> None:
        plan = dispatch.plan
        weight_TE = np.zeros((plan.tokens, len(plan.counts_E)))
        for block, expert, weight in zip(plan.block_P, plan.expert_P, plan.weight_P, strict=True):
            weight_TE[int(block) * plan.block : (int(block) + 1) * plan.block, int(expert)] = float(weight)
        self.by_layer[layer] = weight_TE

    def _merge(self, layer: int, weights: Any) -> None:
        units = zip(weights.weight_BUE[0], weights.lengths, strict=True)
        self.by_layer[layer] = np.concatenate([np.tile(unit_E.numpy(), (length, 1)) for unit_E, length in units])

    def _soft(self, layer: int, logits_1TS: torch.Tensor) -> None:
        soft = self.model.blocks[layer].ffn.soft  # type: ignore[union-attr]
        share_TS = np.exp(logits_1TS[0].numpy())
        share_TS /= share_TS.sum(1, keepdims=True)
        weight_TE = share_TS.reshape(len(share_TS), -1, soft.slots_per_expert).sum(2)
        if soft.form == "chunk_lagged":  # tokens of the first chunk go through expert 0 as they are
            weight_TE[: soft.chunk_length] = np.eye(weight_TE.shape[1])[0]
        self.by_layer[layer] = weight_TE

    def _logits(self, layer: int, logits: torch.Tensor) -> None:
        self.logits[layer] = logits.numpy()


def naive(folder: RunFolder) -> tuple[dict[int, np.ndarray], np.ndarray, dict[int, np.ndarray]]:
    """Weights by layer (T, E), loss (T,) and logits by layer, from one window of one document after another."""
    model, probe = load_model(folder), small_probe()
    recorder = Recorder(model)
    weights: dict[int, list[np.ndarray]] = {}
    logits: dict[int, list[np.ndarray]] = {}
    losses: list[float] = []
    for document in range(probe.documents):
        ids = probe.token_T[probe.start_D1[document] : probe.start_D1[document + 1]]
        losses.append(math.nan)
        for start in range(0, len(ids), CONTEXT):
            window = torch.from_numpy(ids[start : start + CONTEXT])[None]
            with torch.no_grad():
                output = model(window, label_B=torch.tensor([document % 2]))
            log_p_TV = output.logits_BTV[0].log_softmax(1)
            following = ids[start + 1 : start + 1 + window.shape[1]]
            losses += [-float(log_p_TV[place, token]) for place, token in enumerate(following)]
            for layer, weight_TE in recorder.by_layer.items():
                weights.setdefault(layer, []).append(weight_TE)
            for layer, values in recorder.logits.items():
                logits.setdefault(layer, []).append(values)
    joined = {layer: np.concatenate(parts) for layer, parts in weights.items()}
    return joined, np.array(losses), {layer: np.concatenate(parts, 1)[0] for layer, parts in logits.items()}


@pytest.mark.parametrize("name", every(3, POINTS))
def test_a_trace_holds_what_the_model_decides_for_every_token(tmp_path: Path, name: str) -> None:
    folder = run_of(tmp_path, name)
    trace = trace_run(folder, small_probe(), progress=False)
    weights, loss_T, _ = naive(folder)
    np.testing.assert_allclose(trace.loss_T, loss_T, rtol=1e-4)
    assert trace.layers == ([1] if name == "every second layer" else [0, 1, 2])
    for layer in trace.layers:
        expected_TE = weights[layer if layer in weights else 0]  # scope=global: the first one decides
        np.testing.assert_allclose(dense_weights(trace, layer), expected_TE, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "picked", "kept"),
    [("top-2 with capacity", 218, None), ("threshold", None, True), ("all", 436, True), ("hash", 218, True)],
)
def test_what_a_capacity_drops_is_picked_and_not_kept(
    tmp_path: Path, name: str, picked: int | None, kept: bool | None
) -> None:
    arrays = trace_run(run_of(tmp_path, name), small_probe(), progress=False).layer(0)
    assert len(arrays["token_T"]) == 109
    if picked is None:  # as many as it takes: at least one, and not the same number everywhere
        counts = np.diff(arrays["start_T1"])
        assert counts.min() == 1 and counts.max() > 1
    else:
        assert len(arrays["expert_P"]) == picked
    assert kept is None or arrays["kept_P"].all() == kept
    if kept is None:
        assert 0 < arrays["kept_P"].mean() < 1
        assert (arrays["weight_P"][~np.asarray(arrays["kept_P"])] > 0).all()  # the weight that it would have had


def test_entropy_and_margin_are_those_of_the_routers_probabilities(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "top-1")
    arrays = trace_run(folder, small_probe(), progress=False).layer(1)
    _, _, logits = naive(folder)
    p_TE = np.exp(logits[1]) / np.exp(logits[1]).sum(1, keepdims=True)
    np.testing.assert_allclose(arrays["entropy_T"], -(p_TE * np.log(p_TE)).sum(1), atol=2e-3)
    ranked_TE = np.sort(p_TE, axis=1)
    np.testing.assert_allclose(arrays["margin_T"], ranked_TE[:, -1] - ranked_TE[:, -2], atol=1e-3)


@pytest.mark.parametrize("name", ["hash", "label", "all", "soft", "merge by segment"])
def test_where_no_expert_is_left_out_by_a_score_there_is_no_margin(tmp_path: Path, name: str) -> None:
    arrays = trace_run(run_of(tmp_path, name), small_probe(), progress=False).layer(0)
    assert np.isnan(arrays["margin_T"]).all()
    assert np.isnan(arrays["entropy_T"]).all() == (name in ("hash", "label"))


def test_documents_positions_and_labels_travel_with_every_token(tmp_path: Path) -> None:
    probe = small_probe()
    arrays = trace_run(run_of(tmp_path, "top-1"), probe, progress=False).layer(0)
    assert np.array_equal(arrays["token_T"], probe.token_T)
    lengths = np.diff(probe.start_D1)
    assert np.array_equal(arrays["document_T"], np.repeat(np.arange(len(lengths)), lengths))
    assert np.array_equal(arrays["position_T"], np.concatenate([np.arange(n) for n in lengths]))
    for name, (codes, values) in (probe.document_labels | probe.token_labels).items():
        found = (arrays["document_labels"] | arrays["token_labels"])[name]
        assert np.array_equal(found[0], codes) and found[1] == values


@pytest.mark.parametrize("name", ["threshold with capacity", "soft", "hash", "global", "merge by segment"])
def test_the_measures_take_every_layer_as_it_is_read(tmp_path: Path, name: str) -> None:
    trace = trace_run(run_of(tmp_path, name), small_probe(), progress=False)
    for layer in trace.layers:
        arrays = LayerTrace(**trace.layer(layer))
        assert arrays.label("language")[0].tolist() == (trace.document_T % 2).tolist()
        assert assignments(arrays, "gate").weight_P.sum() == pytest.approx(109, rel=1e-6)


def test_windows_cover_every_token_once() -> None:
    start_D1 = np.array([0, 5, 5, 29, 30, 54])
    start_W, length_W, document_W = windows(start_D1, 12)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(start_W, length_W, strict=True)])
    assert np.array_equal(covered, np.arange(54)) and length_W.max() == 12
    assert document_W.tolist() == [0, 2, 2, 3, 4, 4]


def test_a_trace_in_parts_is_that_of_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, probe = run_of(tmp_path, "threshold"), small_probe()
    whole = trace_run(folder, probe, progress=False)
    before = {path.name: path.read_bytes() for path in whole.folder.glob("*.bin")}
    (whole.folder / "manifest.json").unlink()
    monkeypatch.setattr(module, "PART_TOKENS", 20)
    parts = trace_run(folder, probe, progress=False)
    after = {path.name: path.read_bytes() for path in parts.folder.glob("*.bin")}
    assert before.keys() == after.keys()
    for name in ("token.bin", "layer00-count.bin", "layer02-expert.bin"):
        assert before[name] == after[name]


def test_a_dense_run_has_losses_alone(tmp_path: Path) -> None:
    folder = untrained_run(tmp_path, from_plain(Routing, {"selection": "dense"}))
    trace = trace_run(folder, small_probe(), progress=False)
    assert trace.layers == [] and np.isfinite(trace.loss_T).sum() == 109 - 9
    with pytest.raises(DataError, match="has no experts"):
        trace.layer(0)


def test_a_trace_is_reused_until_the_weights_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe()
    first = trace_run(folder, probe, progress=False)
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(module, "load_model", lambda folder: pytest.fail("the model was loaded again"))
        again = trace_run(folder, probe, progress=False)
    assert (again.folder / "manifest.json").stat().st_mtime_ns == written
    assert trace_run(folder, small_probe(seed=1), progress=False).folder != first.folder
    save_weights(folder, run_config(tmp_path / "runs", Routing(), seed=7))
    assert not np.array_equal(trace_run(folder, probe, progress=False).loss_T, again.loss_T)


def test_a_trace_stays_of_use_when_the_checkpoint_is_gone(tmp_path: Path) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe()
    trace_run(folder, probe, progress=False)
    (folder.checkpoint_folder / "final.pt").unlink()
    assert len(trace_run(folder, probe, progress=False).token_T) == 109
    with pytest.raises(StudyError, match="no checkpoint"):
        trace_run(folder, small_probe(seed=1), progress=False)


def test_a_file_cut_short_is_made_anew(tmp_path: Path) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe()
    path = trace_run(folder, probe, progress=False).folder / "layer01-expert.bin"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    assert (trace_run(folder, probe, progress=False).folder / path.name).read_bytes() == content


def test_a_killed_trace_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, probe = run_of(tmp_path, "top-1"), small_probe()
    monkeypatch.setattr(module, "PART_TOKENS", 20)
    if (child := os.fork()) == 0:
        write = module.TracePart.write

        def killed(part: Any, writer: Any) -> None:
            write(part, writer)
            if part.start:
                os.kill(os.getpid(), signal.SIGKILL)

        module.TracePart.write = killed  # type: ignore[method-assign]
        trace_run(folder, probe, progress=False)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert [path.name for path in folder.traces_folder.glob("[!.]*")] == []
    assert len(list(folder.traces_folder.glob(".small*"))) == 1
    trace_run(folder, probe, progress=False)
    assert len(list(folder.traces_folder.glob(".small*"))) == 0


def test_training_anew_forgets_traces(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "top-1")
    trace_run(folder, small_probe(), progress=False)
    folder.forget_training()
    assert not folder.traces_folder.exists()


def test_a_router_by_label_says_what_it_does_not_know(tmp_path: Path) -> None:
    probe = small_probe()
    codes, _ = probe.document_labels["language"]
    probe.document_labels["language"] = (codes, ("de", "fr"))
    with pytest.raises(DataError, match="trained on de, en: it has no expert for fr"):
        trace_run(run_of(tmp_path, "label"), probe, progress=False)
    del probe.document_labels["language"]
    with pytest.raises(DataError, match="has no such label"):
        trace_run(run_of(tmp_path, "label"), probe, progress=False)


def test_a_million_tokens_of_twelve_layers_top_2_take_less_than_200_megabytes(tmp_path: Path) -> None:
    """By the bytes that a thousand tokens take, manifest apart."""
    routing = from_plain(Routing, {"k": 2, "num_experts": 8})
    trace = trace_run(untrained_run(tmp_path, routing), small_probe((50,) * 20), progress=False)
    layers = sum(path.stat().st_size for path in trace.folder.glob("layer*.bin")) / len(trace.layers)
    rest = sum(path.stat().st_size for path in trace.folder.glob("[!l]*.bin")) + trace.loss_T.nbytes
    assert (layers * 12 + rest) / 1000 <= 200


def test_a_run_on_images_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(tmp_path, "top-1")
    images = dataclasses.replace(folder.read_config(), task="images")
    monkeypatch.setattr(RunFolder, "read_config", lambda self: images)
    for ask in (lambda: probe_of(folder), lambda: Tracer.of(folder)):
        with pytest.raises(StudyError, match="asked of runs on text"):
            ask()
