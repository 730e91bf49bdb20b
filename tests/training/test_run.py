"""Whole runs: how they end, and what they leave behind."""

import dataclasses
import math
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from moe_study.data import TrainSampler, load_run_tokenizer, open_corpus, prepare, validation_batches
from moe_study.design import accounting
from moe_study.design.config import ModelConfig, TokenizerConfig
from moe_study.design.routing import Routing, Selection, Unit
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.launch.execute import execute
from moe_study.model.gpt import GPT
from moe_study.runs.folder import RunFolder, State
from moe_study.training import run
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model, load_model
from tests.fixtures import tiny_data_config
from tests.training.harness import assert_same, make_config, outcome

DENSE = Routing(selection=Selection.DENSE)


def lines(config, kind):
    return [record for record in RunFolder.of(config).metrics() if record["kind"] == kind]


def test_a_run_leaves_its_curve_result_table_and_model(undisturbed, data):
    config, folder, corpus = undisturbed, RunFolder.of(undisturbed), open_corpus(data)
    assert folder.state() is State.DONE
    assert [r["step"] for r in lines(config, "train")] == [3, 6, 9, 12, 15, 18, 20]
    assert [r["step"] for r in lines(config, "validation")] == [7, 14, 20]
    assert [(r["step"], r["layer"]) for r in lines(config, "routing")] == [
        (step, layer) for step in (5, 10, 15, 20) for layer in (0, 1)
    ]
    for record in lines(config, "train"):
        assert record["tokens"] == record["step"] * 6 * 16
        assert record["aux"].keys() == {"switch", "z"}
        assert record["grad_norm"] > 0
    for record in lines(config, "routing"):
        assert sum(record["share"]) == pytest.approx(1.0)
        assert record["kept_per_token"] == 2.0
        assert 0 < record["entropy"] <= math.log(4)
    result = folder.result()
    assert result["validation_perplexity"] == pytest.approx(math.exp(result["validation_loss"]))
    assert result["validation_loss"] == lines(config, "validation")[-1]["loss"]
    assert result["tokens"] == 20 * 6 * 16
    assert result["num_params"] == accounting.num_params(config)
    assert result["kept_per_token"] == {"0": 2.0, "1": 2.0}
    assert result["data_fingerprint"] == corpus.fingerprint == folder.provenance()["data_fingerprint"]
    assert result["tokens_per_second"] > 0
    routing = pd.read_parquet(folder.routing_file)
    assert routing["count"].sum() == 2 * 2 * result["validation_tokens"]  # 2 layers, 2 picks a token
    assert set(routing["language"]) == set(corpus.languages)
    assert os.listdir(folder.checkpoint_folder) == ["final.pt"]


def test_the_folder_of_a_run_stands_alone(tmp_path):
    """Copied elsewhere, the data gone: its tokenizer encodes as the corpus's did, its model gives the same loss."""
    data = tiny_data_config(tmp_path, tokenizer=TokenizerConfig("bpe", 300))
    corpus = prepare(data, progress=False)
    config = make_config(tmp_path, data, steps=2)
    execute(config)
    batch = next(validation_batches(corpus.validation, 16, 2, 32))
    inputs_BT, text = torch.from_numpy(batch.inputs_BT.copy()), "Der Minister said: 2017."
    before, ids = load_model(RunFolder.of(config))(inputs_BT).logits_BTV, corpus.tokenizer.encode(text)
    shutil.copytree(RunFolder.of(config).path, tmp_path / "elsewhere" / config.key)
    for gone in ("runs", "data", "texts"):
        shutil.rmtree(tmp_path / gone)
    copied = RunFolder(tmp_path / "elsewhere" / config.key)
    assert load_run_tokenizer(copied).encode(text) == ids
    assert torch.equal(load_model(copied)(inputs_BT).logits_BTV, before)


def test_the_saved_model_gives_the_reported_loss_by_an_independent_path(undisturbed, data):
    """Logits of the reloaded model, one sequence at a time, float64 cross-entropy, plain means."""
    config, folder = undisturbed, RunFolder.of(undisturbed)
    result, corpus, model = folder.result(), open_corpus(data), load_model(folder)
    losses, by_language, size = [], {name: [] for name in corpus.languages}, 0
    for batch in validation_batches(corpus.validation, 16, 1, config.run.eval_tokens):
        logits_TV = model(torch.from_numpy(batch.inputs_BT.copy())).logits_BTV[0].double()
        loss_T = F.cross_entropy(logits_TV, torch.from_numpy(batch.targets_BT[0].copy()), reduction="none")
        losses += loss_T.tolist()
        by_language[corpus.languages[batch.language_B[0]]] += loss_T.tolist()
        size += len(corpus.tokenizer.decode(batch.targets_BT[0].tolist()).encode())
    assert result["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    for name, part in by_language.items():
        assert result["by_language"][name]["loss"] == pytest.approx(np.mean(part), rel=1e-6)


def test_a_leaking_point_carries_the_mark(tmp_path, data):
    from moe_study.design.routing import Context

    config = make_config(tmp_path, data, Routing(unit=Unit.SEQUENCE, context=Context.UNIT_MEAN), steps=2)
    execute(config)
    result = RunFolder.of(config).result()
    assert result["causality"] == {"own_future": True, "others_future": False, "mixes_batch": False}
    assert result["causality_measured"] == result["causality"]


def test_a_dense_run_has_an_empty_routing_table_and_no_routing_lines(tmp_path, data):
    config = make_config(tmp_path, data, DENSE, steps=4)
    execute(config)
    assert len(pd.read_parquet(RunFolder.of(config).routing_file)) == 0
    assert lines(config, "routing") == []


def test_a_token_budget_is_rounded_up_to_whole_steps(tmp_path, data):
    config = make_config(tmp_path, data, DENSE, steps=None, tokens=5 * 6 * 16 + 1)
    execute(config)
    assert RunFolder.of(config).result()["steps"] == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR2, marks=pytest.mark.long)])
def test_a_stop_signal_saves_at_the_end_of_the_step_and_the_next_start_goes_on(tmp_path, data, undisturbed, number):
    config = make_config(tmp_path, data, log={"checkpoint_every": 0})

    def child():
        original = Trainer.train_step

        def slow(self):
            original(self)
            if self.step >= 6:  # two lines of the curve: the signal comes
                time.sleep(0.05)

        Trainer.train_step = slow
        execute(config)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    folder, deadline = RunFolder.of(config), time.monotonic() + 60
    while len(folder.metrics()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0  # the entry point turns the status into its own exit code
    status = folder.status()
    assert folder.state() is State.PREEMPTED
    assert 3 <= status.step < 20
    assert os.listdir(folder.checkpoint_folder) == [f"step-{status.step:08d}.pt"]
    assert folder.result() is None
    (folder.traces_folder / "brown-1").mkdir(parents=True)  # the run was asked where it stood
    folder.sparsify_file.write_text("{}")
    execute(config)
    assert_same(outcome(config), outcome(undisturbed))
    assert not folder.traces_folder.exists() and not folder.sparsify_file.exists()  # that was of other weights


def poisoned_after(steps, monkeypatch):
    """From then on the model's loss is not a number."""
    original = GPT.forward

    def forward(self, *arguments, **settings):
        output = original(self, *arguments, **settings)
        trainer = getattr(forward, "trainer", None)  # there is none yet while the routing is audited
        if self.training and trainer is not None and trainer.step >= steps:
            output.loss = output.loss * float("nan")
        return output

    class Watched(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            forward.trainer = self

    monkeypatch.setattr(GPT, "forward", forward)
    monkeypatch.setattr(run, "Trainer", Watched)


@pytest.mark.parametrize("steps", [0, 5, 6, 11])
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged_with_its_curve(tmp_path, data, monkeypatch, steps):
    poisoned_after(steps, monkeypatch)
    config = make_config(tmp_path, data, DENSE)
    status, folder = execute(config), RunFolder.of(config)
    assert status.state is State.DIVERGED
    assert status.step == steps
    assert status.message == f"the loss of step {steps + 1} is not finite"
    assert folder.result() is None
    curve = lines(config, "train")
    expected = [step for step in (3, 6, 9) if step <= steps]
    if steps not in (0, *expected):
        expected.append(steps)  # the finite rest of the last window
    assert [record["step"] for record in curve] == expected
    assert all(math.isfinite(record["loss"]) for record in curve)
    saved = [int(path.stem[5:]) for path in folder.checkpoint_folder.glob("step-*.pt")]
    assert all(step <= steps for step in saved)


def test_weights_that_are_not_finite_count_as_diverged_even_if_the_model_breaks_on_them(tmp_path, data, monkeypatch):
    poisoned_after(7, monkeypatch)
    original = Trainer.train_step

    def breaking(self):
        if self.step == 8:
            raise IndexError("an expert that does not exist")
        original(self)

    monkeypatch.setattr(Trainer, "train_step", breaking)
    config = make_config(tmp_path, data, DENSE)
    assert execute(config).state is State.DIVERGED


def test_a_validation_loss_that_is_not_finite_is_diverged_too(tmp_path, data, monkeypatch):
    original = run.evaluate
    monkeypatch.setattr(run, "evaluate", lambda *a, **s: dataclasses.replace(original(*a, **s), loss=math.inf))
    config = make_config(tmp_path, data, DENSE)
    status = execute(config)
    assert (status.state, status.step) == (State.DIVERGED, 7)
    assert "validation loss after step 7" in status.message
    assert lines(config, "train")[-1]["step"] == 7


def test_a_defect_is_recorded_with_its_traceback_and_the_next_start_goes_on(tmp_path, data, undisturbed, monkeypatch):
    config = make_config(tmp_path, data)
    original = Trainer.train_step

    def broken(self):
        if self.step == 10:
            raise ZeroDivisionError("somewhere deep")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", broken)
        with pytest.raises(ZeroDivisionError):
            execute(config)
    status = RunFolder.of(config).status()
    assert status.state is State.FAILED
    assert status.error["type"] == "ZeroDivisionError"
    assert "in broken" in status.error["traceback"]
    execute(config)
    assert_same(outcome(config), outcome(undisturbed))


def test_missing_data_too_small_a_vocabulary_and_a_missing_gpu_are_sentences(tmp_path, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    good = make_config(tmp_path, data)
    absent = dataclasses.replace(good, data=dataclasses.replace(data, root=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="prepare"):
        execute(absent)
    small = dataclasses.replace(good, model=dataclasses.replace(good.model, vocab_size=100))
    with pytest.raises(ConfigError, match=r"model\.vocab_size=100 is too small for the data's 257"):
        execute(small)
    with pytest.raises(StudyError, match="CUDA"):
        execute(make_config(tmp_path, data, device="cuda"))


@pytest.mark.long
def test_evaluation_and_checkpoints_are_no_training_time(tmp_path, data, monkeypatch):
    for owner, name in ((run, "evaluate"), (run.checkpoint, "save")):
        original = getattr(owner, name)

        def slow(*arguments, original=original, **settings):
            time.sleep(0.3)
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, slow)
    spent, train_step = [], Trainer.train_step

    def timed(self):
        started = time.perf_counter()
        train_step(self)
        spent.append(time.perf_counter() - started)

    monkeypatch.setattr(Trainer, "train_step", timed)
    config = make_config(tmp_path, data, DENSE)  # 3 evaluations, 4 checkpoints: over 2 s
    started = time.perf_counter()
    execute(config)
    whole = time.perf_counter() - started
    result = RunFolder.of(config).result()
    assert sum(spent) <= result["train_seconds"] < whole - 2.1
    assert result["tokens_per_second"] > 19 * 6 * 16 / (whole - 2.1)


def test_bf16_trains_close_to_fp32_and_keeps_float32_weights(tmp_path, data):
    fp32, bf16 = (make_config(tmp_path, data, steps=6, precision=p) for p in ("fp32", "bf16"))
    assert fp32.key != bf16.key
    results = [execute(config).state and RunFolder.of(config).result() for config in (fp32, bf16)]
    assert results[0]["validation_loss"] == pytest.approx(results[1]["validation_loss"], rel=0.02)
    assert results[0]["validation_loss"] != results[1]["validation_loss"]
    assert {p.dtype for p in load_model(RunFolder.of(bf16)).parameters()} == {torch.float32}


def test_compile_is_in_place_and_only_where_asked_for(tmp_path, data, monkeypatch):
    """What in-place compilation does to a checkpoint is tested beside the checkpoints."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    execute(make_config(tmp_path, data, DENSE, steps=1))
    assert compiled == []
    execute(make_config(tmp_path, data, DENSE, steps=1, compile=True))
    assert compiled == [GPT]


def test_a_model_without_checkpoint_cannot_be_loaded(tmp_path, data):
    config = make_config(tmp_path, data)
    folder = RunFolder.of(config)
    with folder.claim(config), pytest.raises(StudyError, match="no checkpoint"):
        load_model(folder)


def test_the_parameters_built_are_the_parameters_counted(tmp_path, data, monkeypatch):
    config = make_config(tmp_path, data)
    assert sum(p.numel() for p in build_model(config, 256).parameters()) == accounting.num_params(config)
    monkeypatch.setattr(accounting, "num_params", lambda config: 1)
    with pytest.raises(AssertionError, match="its configuration counts 1"):
        build_model(config, 256)


def test_the_seed_decides_start_and_data_order(tmp_path, data):
    one, other = (make_config(tmp_path, data, seed=seed) for seed in (0, 1))
    assert not torch.equal(*(next(build_model(c, 256).parameters()) for c in (one, other)))
    train = open_corpus(data).train
    first, second = (TrainSampler(train, 16, 6, c.run.seed).batch(0).inputs_BT for c in (one, other))
    assert not np.array_equal(first, second)


def test_dropout_is_on_in_training_only(tmp_path, data):
    """Two evaluations of one model in the middle of training agree to the last bit."""
    config = make_config(tmp_path, data)
    corpus = open_corpus(data)
    model = build_model(dataclasses.replace(config, model=ModelConfig(2, 2, 16, 16, dropout=0.5)), 256).train()
    losses = [
        run.evaluate(model, validation_batches(corpus.validation, 16, 8, 512), corpus, torch.device("cpu")).loss
        for _ in range(2)
    ]
    assert losses[0] == losses[1]
    assert model.training


def test_a_failing_compiler_is_one_sentence() -> None:
    failed = torch._dynamo.exc.TorchDynamoException("no compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")
    with pytest.raises(StudyError, match=r"^torch\.compile failed \(no compiler found\); use run\.compile=false"):
        run.raise_if_not_compiled(failed)
    run.raise_if_not_compiled(ValueError("of the model's own"))  # none of its business
