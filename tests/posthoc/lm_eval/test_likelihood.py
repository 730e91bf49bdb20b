"""Log-likelihoods of token ids against a loop that reads one text at a time, token by token, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.design.validation import validate
from moe_study.errors import ConfigError
from moe_study.posthoc.lm_eval import likelihood
from moe_study.posthoc.lm_eval.likelihood import Reader, Reading, windows_of
from moe_study.posthoc.lm_eval.passes import Passes, passes_for, passes_of
from moe_study.posthoc.trace import Tracer
from moe_study.training.models import build_model
from tests.part import every
from tests.points import points
from tests.posthoc.lm_eval.reference import Slow
from tests.posthoc.runs import CONTEXT, VOCABULARY, untrained_run

CAUSAL = {
    "dense": {"selection": "dense"},
    "token": {"k": 2},
    "prefix": {"k": 2, "unit": "sequence", "context": "prefix", "prefix_length": 4},
    "lagged": {"k": 1, "unit": "segment", "segment_length": 4, "context": "previous_segment"},
    "capacity": {"k": 2, "capacity": {"factor": 0.5}},
    "label": {"k": 1, "unit": "sequence", "router": "label", "context": "label"},
}
LEAKING = {
    "sequence": {"k": 2, "unit": "sequence", "context": "unit_mean"},
    "expert choice": {"selection": "expert_choice", "k": 2, "choice_scope": "sequence"},
    "soft": {"selection": "soft"},
    "merge": {"selection": "merge", "unit": "sequence", "context": "unit_mean"},
}
MIXING = {
    "by position": {"selection": "expert_choice", "k": 2, "choice_scope": "position"},
    "across the batch": {"selection": "soft", "soft": {"form": "across_batch", "group_size": 4}},
}
BOTH = {
    "a limit of the batch": {"k": 2, "num_experts": 4, "capacity": {"factor": 0.5, "group": "batch"}},
    "a limit where all ask for all": {"k": 4, "num_experts": 4, "capacity": {"factor": 0.25, "group": "batch"}},
    "shuffled": {"k": 2, "shuffle": True},
}
ALL = {**CAUSAL, **LEAKING, **MIXING, **BOTH}
LENGTHS = ((1, 1), (5, 3), (12, 1), (1, 12), (20, 4), (1, 13), (2, 17), (5, 3), (4, 0))


def reader_of(folder, passes=None):
    return Reader(Tracer.of(folder), passes or passes_of(folder, allow_growing=True))


def texts(seed=0, lengths=LENGTHS, vocabulary=VOCABULARY):
    """(tokens before, tokens): shorter and longer than the context of 12."""
    draw = np.random.default_rng(seed)
    return [tuple(draw.integers(1, vocabulary, n).tolist() for n in pair) for pair in lengths]


def scored(reader, pairs, label=0, context=CONTEXT):
    """Each pair's log-probability and whether it is greedy; all are read at once."""
    windows = [list(windows_of(before, tokens, context, label)) for before, tokens in pairs]
    found = iter(reader.likelihoods([window for own in windows for window in own]))
    parts = [[next(found) for _ in own] for own in windows]
    return [(sum(p.log_probability for p in own), all(p.greedy for p in own)) for own in parts]


def run_of(tmp_path, routing):
    return untrained_run(tmp_path, from_plain(Routing, routing))


@pytest.mark.parametrize("name", every(3, ALL))
def test_every_routing_gives_what_a_slow_loop_gives(tmp_path, name):
    folder = run_of(tmp_path, ALL[name])
    reader, slow, label = reader_of(folder), Slow.of_run(folder), int(name == "label")
    assert reader.passes == Passes(growing=name in LEAKING or name in BOTH, alone=name in MIXING or name in BOTH)
    expected = [slow.of(before, tokens, label) for before, tokens in texts()]
    for found, wanted in zip(scored(reader, texts(), label), expected, strict=True):  # all at once
        assert found[0] == pytest.approx(wanted[0], abs=1e-4) and found[1] == wanted[1]


SOME = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@SOME
@given(points())
def test_some_points_of_the_design_space_give_what_a_slow_loop_gives(config):
    check_point(config)


@pytest.mark.long
@settings(SOME, max_examples=200, derandomize=False)
@given(points())
def test_any_point_of_the_design_space_gives_what_a_slow_loop_gives(config):
    check_point(config)


def check_point(config):
    """In float64, where rounding decides no choice of experts."""
    try:
        validate(config)
    except ConfigError:
        assume(False)
    context = config.model.context
    sharp = replace(config, model=replace(config.model, init_std=0.5), run=replace(config.run, precision="fp32"))
    gpt = build_model(sharp, end_of_text=3).double().eval()
    passes, _ = passes_for(config.routing, context)
    reader, slow = Reader(Tracer(gpt, sharp, torch.device("cpu")), passes), Slow(gpt, context)
    lengths = ((1, 1), (3, 3), (3, 3), (context, 2), (1, context + 1))
    pairs = [(before, tokens) for before, tokens in texts(7, lengths, config.vocab_size)]
    for pair, found in zip(pairs, scored(reader, pairs, context=context), strict=True):
        wanted = slow.of(*pair)
        assert found[0] == pytest.approx(wanted[0], abs=1e-8) and found[1] == wanted[1]


@pytest.mark.parametrize("name", LEAKING)
def test_one_pass_over_a_leaking_routing_would_give_something_else(tmp_path, name):
    """Otherwise the test above would show nothing."""
    folder = run_of(tmp_path, LEAKING[name])
    pairs = texts(lengths=((5, 5),) * 4)
    in_one_pass, growing = (scored(reader_of(folder, Passes(growing=g)), pairs) for g in (False, True))
    assert max(abs(a[0] - b[0]) for a, b in zip(in_one_pass, growing, strict=True)) > 1e-3


@pytest.mark.parametrize("name", MIXING)
def test_neighbours_change_nothing_where_a_routing_mixes_documents(tmp_path, name):
    folder = run_of(tmp_path, MIXING[name])
    readings = [next(windows_of(*pair, CONTEXT)) for pair in texts(lengths=((5, 4),) * 3)]
    together = reader_of(folder).likelihoods(readings)
    assert together == [reader_of(folder).likelihoods([reading])[0] for reading in readings]
    batched = reader_of(folder, Passes()).likelihoods(readings)
    assert max(abs(a.log_probability - b.log_probability) for a, b in zip(together, batched, strict=True)) > 1e-3


def test_results_are_in_the_order_of_requests_whatever_is_read_together(tmp_path, monkeypatch):
    reader = reader_of(run_of(tmp_path, CAUSAL["token"]))
    readings = [reading for pair in texts(3, LENGTHS * 3) for reading in windows_of(*pair, CONTEXT)]
    expected = [reader.likelihoods([reading])[0] for reading in readings]
    order = np.random.default_rng(1).permutation(len(readings))
    for most in (1, 3 * CONTEXT * VOCABULARY, likelihood.MOST_LOGITS):
        monkeypatch.setattr(likelihood, "MOST_LOGITS", most)
        found = reader.likelihoods([readings[i] for i in order])
        for place, one in zip(order, found, strict=True):
            assert one.log_probability == pytest.approx(expected[place].log_probability, abs=1e-4)
            assert one.greedy == expected[place].greedy


def test_texts_of_one_length_are_read_in_one_pass_and_the_same_text_once(tmp_path, monkeypatch):
    reader, passes = reader_of(run_of(tmp_path, CAUSAL["token"])), []
    original = type(reader.tracer.model).forward

    def noted(model, tokens_BT, *rest, **more):
        passes.append(tuple(tokens_BT.shape))
        return original(model, tokens_BT, *rest, **more)

    monkeypatch.setattr(type(reader.tracer.model), "forward", noted)
    choices = [Reading((1, 2, 3), (target,)) for target in (4, 5, 6)]
    found = reader.likelihoods([*choices, Reading((7, 8, 9), (1, 2)), Reading((1,), (2,)), Reading((5, 5), ())])
    assert passes == [(2, 3), (1, 1)]
    assert len({one.log_probability for one in found[:3]}) == 3 and found[-1] == (0.0, True)


def test_growing_prefixes_are_read_in_parts_where_they_are_many(tmp_path, monkeypatch):
    reader = reader_of(run_of(tmp_path, LEAKING["sequence"]))
    readings = [next(windows_of(*pair, CONTEXT)) for pair in texts(lengths=((5, 5), (3, 4), (1, 9)))]
    expected = reader.likelihoods(readings)
    monkeypatch.setattr(likelihood, "MOST_PREFIXED", 1)
    for found, wanted in zip(reader.likelihoods(readings), expected, strict=True):
        assert found.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)


def test_probabilities_of_all_next_tokens_sum_to_one(tmp_path):
    reader = reader_of(run_of(tmp_path, LEAKING["soft"]))
    found = reader.likelihoods([Reading((3, 1, 4), (token,)) for token in range(VOCABULARY)])
    total = torch.tensor([one.log_probability for one in found]).logsumexp(0)
    assert float(total) == pytest.approx(0, abs=1e-5)
    assert sum(one.greedy for one in found) == 1


@pytest.mark.parametrize(("before", "tokens"), LENGTHS)
def test_windows_are_those_of_the_harness(before, tokens):
    """As its rolling windows where the text is long, as its cut from the left elsewhere."""
    utils = pytest.importorskip("lm_eval.utils")
    whole = list(range(1, before + tokens + 1))
    found = list(windows_of(whole[:before], whole[before:], CONTEXT))
    if tokens > CONTEXT:
        wanted = list(utils.get_rolling_token_windows(whole[before:], whole[before - 1], CONTEXT, 1))
        assert [(list(one.tokens), list(one.targets)) for one in found] == wanted
    else:
        assert list(found[0].tokens) == whole[-(CONTEXT + 1) :][:-1]
    assert [target for one in found for target in one.targets] == whole[before:]
    assert all(0 < len(one.tokens) <= CONTEXT and len(one.targets) <= len(one.tokens) for one in found)


def test_a_first_token_needs_something_before_it():
    with pytest.raises(ValueError, match="after another one"):
        list(windows_of([], [1, 2], CONTEXT))
