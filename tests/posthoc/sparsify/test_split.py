"""A dense network as a sum of experts, and the threshold that leaves some of them out."""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from moe_study.design.config import ModelConfig, RunConfig, RunSettings
from moe_study.design.routing import Gate, Routing, Selection
from moe_study.model.gpt import GPT
from moe_study.posthoc.sparsify.clusters import balanced_clusters
from moe_study.posthoc.sparsify.lowering import lower, mixtures
from moe_study.posthoc.sparsify.split import as_split, fit_router, output_shares, read_inputs, split_model

VOCAB = 32
THRESHOLDS = [0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0]


def dense_model(bias: bool, dtype: torch.dtype) -> tuple[RunConfig, GPT]:
    """Two layers, sharpened so that every bias and every unit matters."""
    size = ModelConfig(layers=2, heads=2, width=16, context=12, bias=bias, vocab_size=VOCAB)
    config = RunConfig(model=size, routing=Routing(selection=Selection.DENSE), run=RunSettings(steps=1))
    model = GPT(size, config.routing, VOCAB).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return config, model


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (6, 12), generator=torch.Generator().manual_seed(seed))


def split(config: RunConfig, model: GPT, experts: int) -> RunConfig:
    changed = as_split(config, experts)
    units = [balanced_clusters(block.ffn.up.weight.detach().numpy(), experts) for block in model.blocks]
    split_model(model, changed, units, read_inputs(model, [tokens(1)]))
    return changed


def outputs(model: GPT) -> tuple[torch.Tensor, list[float]]:
    """Logits, and executed expert rows a token of each layer."""
    with torch.inference_mode():
        output = model(tokens(), tokens(), return_logits=True)
    return output.logits_BTV, [float(stats.executed) / stats.tokens for stats in output.stats]


SINGLE, DOUBLE = (torch.float32, 1e-5), (torch.float64, 1e-12)
SPLITS = list(product((2, 8, 64), (True, False), (SINGLE, DOUBLE)))
ENOUGH = [(2, True, SINGLE), (8, False, DOUBLE), (64, True, DOUBLE)]


@pytest.mark.parametrize(
    ("experts", "bias", "precision"),
    [pytest.param(*one, marks=() if one in ENOUGH else pytest.mark.long) for one in SPLITS],
)
def test_a_split_network_with_every_expert_on_is_the_dense_one(experts, bias, precision):
    dtype, tolerance = precision
    config, model = dense_model(bias, dtype)
    dense, _ = outputs(model)
    changed = split(config, model, experts)
    for threshold in (None, 1.0):
        if threshold is not None:
            lower(model, changed.routing, threshold)
        logits, rows = outputs(model)
        assert rows == [experts, experts]
        assert (logits - dense).abs().max() <= tolerance * dense.abs().max()


def test_what_is_left_out_is_exactly_the_other_experts_units_and_never_the_output_bias():
    config, model = dense_model(True, torch.float64)
    dense = model.blocks[0].ffn
    x_ND = read_inputs(model, [tokens()])[0]
    changed = split(config, model, 4)
    units_EF = balanced_clusters(dense.up.weight.detach().numpy(), 4)
    lower(model, changed.routing, 0.6)
    layer = mixtures(model)[0]
    picks = layer.decider.select(layer.decider.router._score(x_ND).unsqueeze(0), None)
    on_NE = torch.zeros(len(x_ND), 4, dtype=torch.float64).scatter(1, picks.expert_RK, picks.keep_RK.double())
    unit_on_NH = torch.empty(len(x_ND), 64, dtype=torch.float64)
    unit_on_NH[:, torch.from_numpy(units_EF).flatten()] = on_NE.repeat_interleave(16, 1)
    expected_ND = F.linear(F.gelu(dense.up(x_ND)) * unit_on_NH, dense.down.weight, dense.down.bias)
    seen = []
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append(output.flatten(0, 1)))
    with torch.inference_mode():
        model(tokens())
    hook.remove()
    assert 0 < on_NE.mean() < 1
    torch.testing.assert_close(seen[0], expected_ND, rtol=1e-12, atol=1e-12)


def test_experts_rise_with_the_threshold_from_one_to_all():
    config, model = dense_model(True, torch.float32)
    changed = split(config, model, 8)
    rows = []
    for threshold in THRESHOLDS:
        lower(model, changed.routing, threshold)
        rows.append(outputs(model)[1])
    first_layer = [by_layer[0] for by_layer in rows]
    assert first_layer == sorted(first_layer)
    assert rows[0] == [1.0, 1.0]
    assert rows[-1] == [8.0, 8.0]
    assert len(set(first_layer)) > 3


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("renormalise", [True, False])
def test_lowering_keeps_the_weights_of_the_whole_mixture(gate, renormalise):
    routing = Routing(selection=Selection.ALL, num_experts=6, gate=gate, renormalise=renormalise)
    size = ModelConfig(layers=1, heads=1, width=8, context=12, vocab_size=VOCAB)
    model = GPT(size, routing, VOCAB).double().eval()
    select = mixtures(model)[0].decider.select
    logits = 2 * torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    whole = select(logits, None).weight_RK
    before = None
    for threshold in THRESHOLDS:
        lower(model, routing, threshold)
        picks = mixtures(model)[0].decider.select(logits, None)
        kept = torch.zeros(50, 6, dtype=torch.bool).scatter(1, picks.expert_RK, picks.mask())
        weight = torch.zeros(50, 6, dtype=torch.float64).scatter(1, picks.expert_RK, picks.weight_RK)
        assert torch.equal(weight, whole * kept)
        assert before is None or (kept | ~before).all()  # an expert that a lower threshold took stays
        p, k = logits[0].softmax(1).sort(1, descending=True).values.cumsum(1), kept.sum(1)
        if 0 < threshold < 1:
            assert (p[range(50), k - 1] >= threshold - 1e-9).all()
            assert (k.eq(1) | (p[range(50), k - 2] < threshold)).all()
        before = kept
    assert kept.all()


def test_the_fitted_router_recovers_a_planted_one_and_the_shares_are_those_of_the_outputs():
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(4000, 5, generator=generator)
    weight_ED, bias_E = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    share_NE = F.linear(x_ND, weight_ED, bias_E).softmax(1)
    fitted_ED, fitted_E = fit_router(x_ND, share_NE)
    assert (F.linear(x_ND.double(), fitted_ED, fitted_E).softmax(1) - share_NE).abs().max() < 0.02

    _, model = dense_model(True, torch.float64)
    dense, units_EF = model.blocks[0].ffn, np.arange(64).reshape(2, 32)
    x_ND = torch.randn(9, 16, generator=generator, dtype=torch.float64)
    h_NH = F.gelu(dense.up(x_ND))
    lengths = [(h_NH[:, part] @ dense.down.weight[:, part].T).norm(dim=1) for part in (slice(0, 32), slice(32, 64))]
    torch.testing.assert_close(output_shares(dense, units_EF, x_ND)[:, 0], lengths[0] / (lengths[0] + lengths[1]))


def test_a_split_of_a_wider_dense_network_counts_its_own_hidden_units():
    config = RunConfig(routing=Routing(selection=Selection.DENSE, ffn_multiplier=2.0), run=RunSettings(steps=1))
    routing = as_split(config, 8).routing
    assert routing.expert_size == 2 * 4 * 96 // 8
    assert dataclasses.replace(routing, expert_size=None) == Routing(selection=Selection.ALL, num_experts=8)
