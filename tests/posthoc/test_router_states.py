"""What routers read: against the inputs of the routers themselves, token by token."""

from typing import Any

import numpy as np
import pytest
import torch

from moe_study.analysis.specialisation.layer_trace import LayerTrace, first_documents
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.routing.router import ScoringRouter
from moe_study.model.transformer import Block
from moe_study.posthoc.router_states import router_states, states_read
from moe_study.posthoc.trace import Tracer, trace_run, windows
from tests.part import every
from tests.posthoc.runs import CONTEXT, small_probe, untrained_run

POINTS: dict[str, dict[str, Any]] = {
    "token": {"k": 2},
    "running mean": {"k": 2, "context": "running_mean"},
    "sequence mean": {"unit": "sequence", "context": "unit_mean", "k": 2},
    "first token": {"unit": "sequence", "context": "first_token", "k": 1},
    "prefix": {"unit": "sequence", "context": "prefix", "prefix_length": 5},
    "segments": {"unit": "segment", "segment_length": 5, "context": "previous_segment", "k": 2},
    "segments by own mean": {"unit": "segment", "segment_length": 5, "context": "unit_mean", "k": 2},
    "global": {"k": 2, "scope": "global"},
    "merge by segment": {"selection": "merge", "unit": "segment", "segment_length": 5, "context": "previous_segment"},
    "expert choice": {"selection": "expert_choice", "k": 2},
    "soft": {"selection": "soft"},
    "hash": {"router": "hash", "k": 2},
    "label": {"router": "label", "unit": "sequence", "context": "label", "k": 1},
}


def states_of(tmp_path, name, probe, tokens):
    folder = untrained_run(tmp_path / "runs", from_plain(Routing, POINTS[name]))
    tracer = Tracer.of(folder)
    return tracer, router_states(tracer, probe, tracer.labels_of(folder, probe), tokens)


def by_hand(x_LH: np.ndarray, name: str) -> np.ndarray:
    """What the decision for each token of one window reads of the layer's input."""
    length, read_LH = len(x_LH), np.empty_like(x_LH)
    for t in range(length):
        start = t // 5 * 5
        before = {0: np.zeros((1, x_LH.shape[1]))}.get(start, x_LH[max(0, start - 5) : start])
        if name == "running mean":
            read_LH[t] = x_LH[: t + 1].mean(0)
        elif name == "sequence mean":
            read_LH[t] = x_LH.mean(0)
        elif name == "first token":
            read_LH[t] = x_LH[0]
        elif name == "prefix":
            read_LH[t] = 0 if t < 5 or length <= 5 else x_LH[:5].mean(0)
        elif name == "segments by own mean":
            read_LH[t] = x_LH[start : start + 5].mean(0)
        elif name in ("segments", "merge by segment"):
            read_LH[t] = before.mean(0)
        else:
            read_LH[t] = x_LH[t]
    return read_LH


@pytest.mark.parametrize("name", every(2, POINTS))
def test_states_are_what_the_decision_of_each_token_reads(tmp_path, name):
    probe = small_probe()
    tracer, states = states_of(tmp_path, name, probe, tokens=10**6)
    inputs: dict[int, list[np.ndarray]] = {}
    hooks = [
        block.ffn.register_forward_pre_hook(
            lambda _, inputs_, number=number: inputs.setdefault(number, []).append(inputs_[0][0].numpy())
        )
        for number, block in enumerate(block for block in tracer.model.modules() if isinstance(block, Block))
    ]
    start_W, length_W, document_W = windows(probe.start_D1, CONTEXT)
    for start, length, document in zip(start_W, length_W, document_W, strict=True):
        token_1L = torch.from_numpy(probe.token_T[start : start + length])[None]
        label_1 = torch.from_numpy(probe.document_labels["language"][0][[document]])
        tracer.read(token_1L, torch.zeros_like(token_1L), label_1)
    for hook in hooks:
        hook.remove()
    assert set(states) == set(inputs)
    for layer, read_TH in states.items():
        own = inputs[0 if name == "global" else layer]
        expected_TH = np.concatenate([by_hand(x_LH, name) for x_LH in own])
        np.testing.assert_allclose(read_TH, expected_TH, atol=2e-3, rtol=2e-3)  # float16


def test_scoring_routers_do_read_those_states(tmp_path):
    """Logits computed from the states by the router itself are those of the forward pass."""
    probe = small_probe()
    tracer, states = states_of(tmp_path, "token", probe, tokens=10**6)
    seen: list[torch.Tensor] = []
    (first, *_) = [module for module in tracer.model.modules() if isinstance(module, ScoringRouter)]
    hook = first.register_forward_hook(lambda _, inputs, output: seen.append(output[0]))
    token_1L = torch.from_numpy(probe.token_T[: probe.start_D1[1]])[None]
    tracer.read(token_1L, torch.zeros_like(token_1L), torch.zeros(1, dtype=torch.long))
    hook.remove()
    weight_EH = next(parameter for name, parameter in first.named_parameters() if "weight" in name)
    logits_LE = torch.from_numpy(states[0][: token_1L.shape[1]].astype(np.float32)) @ weight_EH.detach().T
    torch.testing.assert_close(logits_LE - logits_LE.mean(1, True), seen[0] - seen[0].mean(1, True), atol=1e-2, rtol=0)


def test_whole_documents_are_read_up_to_the_budget_and_the_trace_is_cut_alike(tmp_path):
    probe = small_probe((5, 12, 13, 1, 30))
    folder = untrained_run(tmp_path / "runs", Routing(k=2))
    tracer = Tracer.of(folder)
    trace = trace_run(folder, probe, progress=False)
    for tokens, documents in ((1, 1), (5, 1), (6, 2), (30, 3), (31, 4), (60, 5), (10**6, 5)):
        states = router_states(tracer, probe, np.zeros(probe.documents, np.int64), tokens)
        whole = LayerTrace(**trace.layer(1))
        cut = first_documents(whole, tokens)
        assert len(states[1]) == len(cut.token_T) == probe.start_D1[documents] and cut.documents == documents
        np.testing.assert_array_equal(cut.expert_P, whole.expert_P[: 2 * len(cut.token_T)])
        np.testing.assert_array_equal(cut.label("language")[0], whole.label("language")[0][: len(cut.token_T)])


def test_a_model_without_experts_has_no_router_to_read_anything(tmp_path):
    folder = untrained_run(tmp_path / "runs", from_plain(Routing, {"selection": "dense"}))
    tracer = Tracer.of(folder)
    assert router_states(tracer, small_probe(), np.zeros(9, np.int64), 100) == {}


def test_no_hook_is_left_behind(tmp_path):
    tracer, _ = states_of(tmp_path, "token", small_probe(), 10)
    layers = [module for module in tracer.model.modules() if isinstance(module, MixtureOfExperts)]
    assert layers and not any(layer._forward_pre_hooks for layer in layers)
    with pytest.raises(ZeroDivisionError), states_read(tracer.model, tracer.config.routing):
        raise ZeroDivisionError
    assert not any(layer._forward_pre_hooks for layer in layers)
