"""Whole runs on images: what they leave behind, and that they go on as if nothing had happened."""

import dataclasses
import math

import pandas as pd
import pytest

from moe_study.analysis.frame import load_frame
from moe_study.analysis.table import perplexity_table
from moe_study.analysis.table_text import to_text
from moe_study.design.config import LogConfig, ModelConfig, OptimizerConfig, RunConfig, RunSettings
from moe_study.design.routing import Routing, Selection, Soft
from moe_study.design.validation import validate
from moe_study.errors import ConfigError, StudyError
from moe_study.launch.execute import execute
from moe_study.posthoc.leak_cost import cost_of_leak
from moe_study.posthoc.sparsify.curve import sparsify
from moe_study.runs.folder import RunFolder, State
from moe_study.training.models import load_model
from tests.fixtures import tiny_digits
from tests.training.harness import assert_same, forked, outcome


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Six steps of Soft MoE on 40 images of noise."""
    return RunConfig(
        task="images",
        model=ModelConfig(layers=2, heads=2, width=16, context=16, patch=7, dropout=0.1),
        routing=Routing(selection=Selection.SOFT, num_experts=4, soft=Soft(slots_per_expert=4)),
        data=tiny_digits(tmp_path, monkeypatch),
        optimizer=OptimizerConfig(lr=3e-3, warmup_steps=2),
        run=RunSettings(steps=6, batch_size=10, micro_batch=4 + 1, eval_every=3, eval_tokens=160, eval_batch=4),
        log=LogConfig(
            runs_dir=str(tmp_path / "runs"), threads=1, log_every=2, routing_every=2, checkpoint_every=2, progress=False
        ),
    )


def test_a_run_leaves_accuracy_and_activations_by_class(config):
    assert execute(config).state is State.DONE
    folder = RunFolder.of(config)
    result = folder.result()
    assert result["validation_tokens"] == 10 and result["accuracy"] in [n / 10 for n in range(11)]
    assert result["bits_per_byte"] is None
    assert result["validation_perplexity"] == math.exp(result["validation_loss"])
    assert result["causality"] == {"own_future": False, "others_future": False, "mixes_batch": False}
    assert set(result["by_topic"]) == {str(digit) for digit in range(10)}
    assert result["tokens"] == 6 * 10 * 16
    counts = pd.read_parquet(folder.routing_file)
    assert len(counts) == 2 * 4 * 10 and set(counts["topic"]) == {str(digit) for digit in range(10)}
    assert (counts["count"] == 4).all() and counts["weight"].sum() == pytest.approx(2 * 10 * 16)
    assert load_model(folder).num_parameters() == result["num_params"]


def test_accuracy_is_what_the_trained_model_gives(config):
    import torch

    from moe_study.data.images import image_batches, open_images

    execute(config)
    folder = RunFolder.of(config)
    (batch,) = image_batches(open_images(config.data).validation, 10, 10)
    with torch.no_grad():
        logits_B1C = load_model(folder)(torch.from_numpy(batch.inputs_BT)).logits_BTV
    right_B = logits_B1C.squeeze(1).argmax(1).numpy() == batch.topic_B
    assert folder.result()["accuracy"] == right_B.mean()


def test_a_run_that_is_killed_ends_with_the_same_bits(config, tmp_path):
    from moe_study.training import run

    undisturbed = dataclasses.replace(config, log=dataclasses.replace(config.log, runs_dir=str(tmp_path / "whole")))
    assert forked(undisturbed) == 0

    def die_at_step_5():
        import os

        original = run.Session._after_step

        def after_step(session):
            if session.trainer.step == 5:
                os._exit(9)
            original(session)

        run.Session._after_step = after_step

    assert forked(config, die_at_step_5) == 9
    assert forked(config) == 0
    assert_same(outcome(undisturbed), outcome(config))


def test_routes_over_training_are_of_text(config):
    traced = dataclasses.replace(config, log=dataclasses.replace(config.log, trace_every=5))
    with pytest.raises(ConfigError, match=r"log\.trace_every=5 keeps routes of text, and task=images has none"):
        validate(traced)


def test_a_table_of_images_tells_accuracies(config):
    execute(config)
    execute(dataclasses.replace(config, routing=Routing(selection=Selection.DENSE)))
    table = perplexity_table(load_frame([RunFolder.of(config).path.parent]))
    text = to_text(table)
    assert "accuracy" in text and "bits/byte" not in text and "†" not in text
    assert table["accuracy"].notna().all()


def test_commands_about_perplexity_refuse_a_run_on_images(config):
    execute(config)
    folder = RunFolder.of(config)
    with pytest.raises(StudyError, match="nothing there comes later"):
        cost_of_leak(folder)
    with pytest.raises(StudyError, match="trained with task=images"):
        sparsify(folder, [0.5], None)
