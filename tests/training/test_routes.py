"""Routes over training: what is kept, when, and that the run itself does not notice."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from moe_study.data import open_corpus, validation_batches
from moe_study.data.sampler import labels_of
from moe_study.design.plain import from_plain
from moe_study.design.routing import Balance, Routing
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder
from moe_study.runs.routes import all_routes, read_routes, steps_of
from moe_study.training import checkpoint, routes, run
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model, load_model
from moe_study.training.tasks import task_of
from tests.training.harness import NOISY, assert_same, forked, make_config, outcome
from tests.training.test_resume import around, at_step

STATEFUL = {
    "noisy": NOISY,
    "redrawn": from_plain(Routing, {"unit": "sequence", "context": "unit_mean", "k": 2, "router_state": "redrawn"}),
    "biased": Routing(num_experts=4, k=1, balance=Balance(bias_rate=0.01, scope="batch")),
    "shuffled": from_plain(Routing, {"k": 1, "capacity": {"factor": 1.0, "group": "batch"}, "shuffle": True}),
    "label": from_plain(Routing, {"router": "label", "unit": "sequence", "context": "label", "k": 1, "num_experts": 2}),
    "merge": from_plain(Routing, {"selection": "merge", "unit": "segment", "segment_length": 4,
                                  "context": "previous_segment"}),
    "soft": from_plain(Routing, {"selection": "soft", "soft": {"form": "prefix"}}),
}  # fmt: skip


def config_of(tmp_path, data, routing=NOISY, *, every=7, tokens=160, steps=20, **log):
    return make_config(tmp_path, data, routing, steps=steps, log={"trace_every": every, "trace_tokens": tokens, **log})


def files_of(config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in RunFolder.of(config).routes_folder.iterdir()}


@pytest.fixture(scope="module")
def traced(data, tmp_path_factory):
    """A run that nothing disturbed, its probe as large as its validation set."""
    config = config_of(tmp_path_factory.mktemp("traced"), data, tokens=240)
    execute(config)
    return config


def test_keeping_routes_changes_no_bit_of_the_run(traced, undisturbed):
    assert traced.key == undisturbed.key
    assert_same(outcome(traced), outcome(undisturbed))
    assert steps_of(RunFolder.of(traced).routes_folder) == [0, 7, 14, 20]
    assert not RunFolder.of(undisturbed).routes_folder.exists()


@pytest.mark.parametrize("name", STATEFUL)
def test_the_next_steps_are_the_same_to_the_last_bit_for_every_kind_of_state(tmp_path, data, name):
    config, corpus = config_of(tmp_path, data, STATEFUL[name], every=1), open_corpus(data)
    states = []
    for keep in (True, False):
        sampler = task_of(config).training(config, corpus)
        trainer = Trainer(config, build_model(config, corpus.end_of_text), sampler, torch.device("cpu"))
        kept = routes.RoutesOverTraining(config, corpus, RunFolder.of(config), trainer.device)
        for step in range(2):
            if keep:
                kept.keep_if_due(trainer.model, step)
            trainer.train_step()
        assert trainer.model.training
        states.append(trainer.state_dict())
    assert same_tree(*states)
    layers = {layer for trace in all_routes(RunFolder.of(config).routes_folder) for layer in trace.layers}
    assert layers == {0, 1}


def same_tree(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same_tree(value, other[name]) for name, value in one.items() if name != "watch"
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_tree, one, other))
    return bool(np.all(one == other))


def test_the_last_routes_are_those_that_evaluation_counted(traced):
    """By layer, expert and domain; the probe is the validation set here."""
    folder = RunFolder.of(traced)
    trace, counted = read_routes(folder.routes_folder, 20), folder.read_activations()
    assert len(trace.token_T) == traced.run.eval_tokens
    found = {}
    for layer in trace.layers:
        arrays = trace.layer(layer)
        (language_D, languages), (topic_D, topics) = (arrays["document_labels"][name] for name in ("language", "topic"))
        document_P = np.repeat(arrays["document_T"], np.diff(arrays["start_T1"]))
        for document, expert in zip(document_P, arrays["expert_P"], strict=True):
            cell = (layer, int(expert), languages[language_D[document]], topics[topic_D[document]])
            found[cell] = found.get(cell, 0) + 1
    names = ["layer", "expert", "language", "topic"]
    assert found == counted[counted["count"] > 0].set_index(names)["count"].to_dict()


def test_losses_and_gates_are_those_of_the_model_at_that_step(traced):
    folder, corpus = RunFolder.of(traced), open_corpus(traced.data)
    trace, model = read_routes(folder.routes_folder, 20), load_model(RunFolder.of(traced))
    expected = []
    for batch in validation_batches(corpus.validation, traced.model.context, 3, 240):
        label_B = torch.from_numpy(labels_of(batch, "language"))
        with torch.no_grad():
            log_p_BTV = model(torch.from_numpy(batch.inputs_BT), label_B=label_B).logits_BTV.log_softmax(-1)
        loss_BT = -log_p_BTV.gather(2, torch.from_numpy(batch.targets_BT)[..., None])[..., 0]
        expected += [np.concatenate([[np.nan], loss_T[:-1]]) for loss_T in loss_BT.numpy()]
    np.testing.assert_allclose(trace.loss_T, np.concatenate(expected), rtol=1e-4)
    first = read_routes(folder.routes_folder, 0)
    assert np.nanmean(first.loss_T) > np.nanmean(trace.loss_T) + 0.5
    assert (first.trained, trace.trained) == (0, 20 * traced.tokens_per_step)
    for layer in first.layers:  # NOISY picks two of four
        assert np.diff(first.layer(layer)["start_T1"]).tolist() == [2] * 240


def test_the_probe_is_the_same_at_every_step_and_seed_and_batch_size(traced, data, tmp_path):
    other = config_of(tmp_path, data, tokens=240, steps=1)
    other = dataclasses.replace(other, run=dataclasses.replace(other.run, seed=5, eval_batch=3))
    execute(other)
    folders = [RunFolder.of(config).routes_folder for config in (traced, other)]
    traces = [trace for folder in folders for trace in all_routes(folder)]
    assert len({trace.manifest["identity"]["probe_fingerprint"] for trace in traces}) == 1
    assert all(np.array_equal(trace.token_T, traces[0].token_T) for trace in traces)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(at_step(16), marks=pytest.mark.long),
        around(routes.RoutesOverTraining, "keep_if_due", when=lambda _, model, step: step == 7),
        pytest.param(
            around(routes.RoutesOverTraining, "keep_if_due", before=True, when=lambda _, model, step: step == 14),
            marks=pytest.mark.long,
        ),
        pytest.param(around(checkpoint, "save_final"), marks=pytest.mark.long),
        pytest.param(around(run.RunFolder, "finish", before=True), marks=pytest.mark.long),
    ],
    ids=["between", "before the checkpoint of step 8", "before routes", "before the last", "before the result"],
)
def test_a_killed_and_resumed_run_has_the_same_files(tmp_path, data, traced, moment):
    config = config_of(tmp_path, data, tokens=240)
    assert forked(config, moment) == -9
    assert forked(config) == 0
    assert files_of(config) == files_of(traced)


def test_routes_after_the_step_resumed_from_are_dropped(tmp_path, data):
    config = config_of(tmp_path, data, every=5)
    assert forked(config, at_step(11)) == -9
    folder = RunFolder.of(config).routes_folder
    assert steps_of(folder) == [0, 5, 10]
    assert forked(config, at_step(9)) == -9  # resumed from step 8
    assert steps_of(folder) == [0, 5]
    half = dataclasses.replace(config, log=dataclasses.replace(config.log, trace_tokens=80))
    assert forked(half) == 0  # another probe: what was kept so far is of no use beside it
    assert steps_of(folder) == [10, 15, 20]


def test_it_is_no_training_time_and_not_through_the_compiled_model(tmp_path, data, monkeypatch):
    """A second form of the pass would be compiled for it. A real compiler takes long; calls through it are caught."""
    original, train, kept, trainers = routes.RoutesOverTraining.keep_if_due, run.Session._train, [], []

    def train_remembered(session: run.Session) -> None:
        trainers.append(session.trainer)
        train(session)

    def watched(self: Any, model: Any, step: int) -> None:
        before = trainers[0].watch.seconds
        model._compiled_call_impl = lambda *_, **__: pytest.fail("through the compiled model")
        original(self, model, step)
        model._compiled_call_impl = None
        assert trainers[0].watch.seconds == before  # it stands still
        kept.append(step)

    monkeypatch.setattr(run.Session, "_train", train_remembered)
    monkeypatch.setattr(routes.RoutesOverTraining, "keep_if_due", watched)
    execute(config_of(tmp_path, data, every=5, steps=12))
    assert kept == [0, 5, 10, 12]


def test_a_dense_run_keeps_none(tmp_path, data):
    config = config_of(tmp_path, data, from_plain(Routing, {"selection": "dense"}), steps=2)
    execute(config)
    assert not RunFolder.of(config).routes_folder.exists()


def test_training_anew_forgets_routes(tmp_path, data):
    config = config_of(tmp_path, data, steps=1)
    execute(config)
    folder = RunFolder.of(config)
    assert steps_of(folder.routes_folder) == [0, 1]
    folder.forget_training()
    assert not folder.routes_folder.exists()
