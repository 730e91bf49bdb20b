"""The size of a leak: a trained leaking run, evaluated under its causal relatives."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_study.cli import main
from moe_study.data import open_corpus
from moe_study.design.causality import verdict
from moe_study.design.config import DataConfig, ModelConfig, RunConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.launch.execute import execute
from moe_study.model.gpt import GPT
from moe_study.model.moe.routing.router import ScoringRouter
from moe_study.posthoc.leak_cost import CALIBRATED, calibrate, cost_of_leak, training_batches, under
from moe_study.runs.folder import RunFolder
from tests.training.doubles import tiny_config

SEQUENCE_MEAN = {"unit": "sequence", "context": "unit_mean", "k": 2, "gate": "double_softmax"}
EXPERT_CHOICE = {"selection": "expert_choice", "k": 1, "num_experts": 4}


def config_of(tmp_path: Path, data: DataConfig, routing: dict[str, object]) -> RunConfig:
    config = tiny_config(tmp_path, steps=6, batch_size=8, eval_every=0)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1)
    return dataclasses.replace(config, data=data, model=model, routing=from_plain(Routing, routing))


def trained(tmp_path: Path, data: DataConfig, routing: dict[str, object]) -> RunFolder:
    config = config_of(tmp_path, data, routing)
    execute(config)
    return RunFolder.of(config)


@pytest.mark.parametrize("routing", [SEQUENCE_MEAN, EXPERT_CHOICE])
def test_a_leaking_run_is_evaluated_as_trained_and_under_every_relative(
    tmp_path: Path, data: DataConfig, routing: dict[str, object]
) -> None:
    folder = trained(tmp_path, data, routing)
    result = folder.result()
    assert result is not None
    costs = cost_of_leak(folder)
    assert costs[0].change == ""
    assert costs[0].evaluation.loss == pytest.approx(result["validation_loss"], rel=1e-6)
    assert len(costs) == (4 if routing is SEQUENCE_MEAN else 3)
    for cost in costs[1:]:
        assert not verdict(cost.routing, folder.read_config().model.context).leaks
        assert math.isfinite(cost.evaluation.loss) and cost.evaluation.loss != costs[0].evaluation.loss
        assert cost.evaluation.tokens == costs[0].evaluation.tokens


def test_the_command_prints_both_perplexities(
    tmp_path: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(tmp_path, data, SEQUENCE_MEAN)
    assert main(["audit", "--cost", folder.key, "--runs-dir", str(folder.path.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = folder.result()
    assert result is not None
    own = next(line for line in lines if line.startswith("as trained"))
    assert f"{result['validation_perplexity']:.3f}" in own and "yes" in own
    assert sum(line.startswith("routing.") and " no " in line for line in lines) == 3


def test_a_causal_run_has_nothing_to_compare(tmp_path: Path, data: DataConfig) -> None:
    folder = trained(tmp_path, data, {"k": 2})
    with pytest.raises(StudyError, match="reads no later token"):
        cost_of_leak(folder)


def relative(config: RunConfig, routing: dict[str, object]) -> RunConfig:
    return dataclasses.replace(config, routing=from_plain(Routing, routing))


def build(config: RunConfig) -> GPT:
    return GPT(config.model, config.routing, config.vocab_size, seed=3).eval()


def test_the_weights_are_the_trained_ones(tmp_path: Path, data: DataConfig) -> None:
    config = config_of(tmp_path, data, SEQUENCE_MEAN)
    changed = relative(config, SEQUENCE_MEAN | {"context": "prefix", "prefix_length": 4})
    model, corpus = build(config), open_corpus(data)
    causal = under(changed, model, corpus.end_of_text, training_batches(changed, corpus), torch.device("cpu"))
    state = causal.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
    assert all(name.endswith(CALIBRATED) for name in set(state) - set(model.state_dict()))


def test_a_prior_is_the_mean_logit_of_training_prefixes(tmp_path: Path, data: DataConfig) -> None:
    config = relative(
        config_of(tmp_path, data, SEQUENCE_MEAN), SEQUENCE_MEAN | {"context": "prefix", "prefix_length": 4}
    )
    model, corpus = build(config), open_corpus(data)
    calibrate(model, training_batches(config, corpus), torch.device("cpu"))
    first = next(module for module in model.modules() if isinstance(module, ScoringRouter))
    block: Any = model.blocks[0]
    logits = []
    with torch.no_grad():
        for tokens_BT, _ in training_batches(config, corpus):
            x_BTD = model.token_embedding(tokens_BT) + model.position_embedding.weight
            x_BTD = block.norm_ffn(x_BTD + block.attn(block.norm_attn(x_BTD), None))
            logits.append(x_BTD[:, :4].mean(1) @ first.weights[0].T)
    assert first.prior_E is not None
    torch.testing.assert_close(first.prior_E.detach(), torch.cat(logits).mean(0), rtol=1e-4, atol=1e-6)


def test_a_cutoff_lets_each_expert_take_its_share(tmp_path: Path, data: DataConfig) -> None:
    """Calibrated on training text, every expert takes about k / N of other training text."""
    config = relative(config_of(tmp_path, data, EXPERT_CHOICE), EXPERT_CHOICE | {"choice_scope": "cutoff"})
    model, corpus = build(config), open_corpus(data)
    calibrate(model, training_batches(config, corpus), torch.device("cpu"))
    tokens_BT = next(training_batches(dataclasses.replace(config, run=dataclasses.replace(config.run, seed=9)), corpus))
    with torch.no_grad():
        stats = model(tokens_BT[0]).stats
    for layer in stats:
        share_E = layer.kept_E / layer.tokens
        assert (share_E > 0.1).all() and (share_E < 0.45).all()


def test_calibration_leaves_the_model_in_evaluation_mode_and_the_generators_alone(
    tmp_path: Path, data: DataConfig
) -> None:
    config = relative(config_of(tmp_path, data, EXPERT_CHOICE), EXPERT_CHOICE | {"choice_scope": "cutoff"})
    model, corpus = build(config), open_corpus(data)
    before = torch.get_rng_state()
    calibrate(model, training_batches(config, corpus), torch.device("cpu"))
    assert not any(module.training for module in model.modules())
    assert torch.equal(before, torch.get_rng_state())
