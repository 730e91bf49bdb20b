"""Perplexity and FLOPs of one trained run over a list of thresholds.

A run trained with every expert on (selection=all) keeps its weights and gate; a dense run is first split into
experts. Rows are counted while evaluating, so that FLOPs are those that were spent, router included.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from moe_study.data import TrainSampler, open_corpus, validation_batches
from moe_study.data.shards import PreparedCorpus
from moe_study.design.accounting import flops_per_token
from moe_study.design.config import RunConfig
from moe_study.design.routing import Selection, expert_hidden, experts_of_layer, mixture_layers
from moe_study.errors import DataError, StudyError
from moe_study.model.gpt import GPT
from moe_study.model.mlp import MLP
from moe_study.posthoc.sparsify.clusters import balanced_clusters, random_clusters
from moe_study.posthoc.sparsify.lowering import lower
from moe_study.posthoc.sparsify.split import as_split, dense_ffns, read_inputs, split_model
from moe_study.runs.folder import RunFolder
from moe_study.training.device import configure
from moe_study.training.evaluation import Evaluation, evaluate
from moe_study.training.models import load_model

EXPERTS = 8  # of a dense run's split, unless given
FIT_TOKENS = 16_384  # of training text, that routers of a split network are fitted on


@dataclass(frozen=True)
class Point:
    """One threshold. FLOPs are forward, a token."""

    split: str  # trained | clusters | random
    threshold: float
    experts_per_token: float  # executed rows, mean over layers
    flops_per_token: float
    flops_share: float  # of the run as trained
    loss: float | None  # nats per token; None where it is not finite
    perplexity: float | None


@dataclass(frozen=True)
class Curve:
    """All that is reported of a run."""

    key: str
    selection: str  # of the run as trained: dense | all
    num_experts: list[int]  # N of each mixture layer
    trained_flops_per_token: float
    trained_loss: float | None
    trained_perplexity: float | None
    validation_tokens: int
    data_fingerprint: str
    points: list[Point]


def sparsify(folder: RunFolder, thresholds: Sequence[float], experts: int | None, control: bool = False) -> Curve:
    """The curve of a run. `experts`: N of a dense run's split (8); `control`: also split it at random.

    StudyError for a run that is neither dense nor trained with every expert on, or that has no checkpoint.
    """
    config = folder.read_config()
    if config.run.device == "cuda" and not torch.cuda.is_available():
        config = replace(config, run=replace(config.run, device="cpu"))  # trained on another machine
    check(config, thresholds, experts, control)
    trained, device = load_model(folder), configure(config)
    assert isinstance(trained, GPT)  # checked
    corpus = open_corpus(config.data)
    result = folder.result()
    if result is not None and result["data_fingerprint"] != corpus.fingerprint:
        raise DataError(f"the prepared data changed since {folder.path} was trained; prepare the same data again")
    trained.to(device)
    evaluated = _evaluate(trained, config, corpus, device)
    points, routed = [], config
    for name, model, routed in _variants(trained, config, corpus, device, experts or EXPERTS, control):
        for threshold in thresholds:
            lower(model, routed.routing, threshold)
            points.append(_point(name, threshold, _evaluate(model, routed, corpus, device), config, routed))
    layers = config.model.layers
    return Curve(
        key=folder.key,
        selection=config.routing.selection.value,
        num_experts=[experts_of_layer(routed.routing, layers, i) for i in mixture_layers(routed.routing, layers)],
        trained_flops_per_token=flops_per_token(config),
        trained_loss=_finite(evaluated.loss),
        trained_perplexity=_finite(evaluated.perplexity),
        validation_tokens=evaluated.tokens,
        data_fingerprint=corpus.fingerprint,
        points=points,
    )


def check(config: RunConfig, thresholds: Sequence[float], experts: int | None, control: bool) -> None:
    """StudyError for what cannot be evaluated."""
    selection = config.routing.selection
    if config.task != "language":
        raise StudyError(f"sparsify evaluates perplexities, and this run was trained with task={config.task}")
    for threshold in thresholds:
        if not 0 <= threshold <= 1:
            raise StudyError(f"--thresholds {threshold:g} must lie in [0, 1]")
    if selection is Selection.ALL:
        if experts is not None or control:
            raise StudyError("this run was trained as experts already: leave out --experts and --control")
        return
    if selection is not Selection.DENSE:
        raise StudyError(
            f"sparsify takes a dense run or one trained with every expert on, not routing.selection={selection};"
            " train routing=dense or routing=dense_split"
        )
    hidden, experts = expert_hidden(config.routing, config.model.hidden), EXPERTS if experts is None else experts
    if experts < 2 or hidden % experts:
        raise StudyError(f"--experts {experts} must be at least 2 and divide the {hidden} hidden units of this run")


Variant = tuple[str, GPT, RunConfig]


def _variants(
    trained: GPT, config: RunConfig, corpus: PreparedCorpus, device: torch.device, experts: int, control: bool
) -> Iterator[Variant]:
    """The models to lower, each with its configuration as a mixture with every expert on."""
    if config.routing.selection is Selection.ALL:
        yield "trained", trained, config
        return
    split = as_split(config, experts)
    batches = (torch.from_numpy(inputs_BT).to(device) for inputs_BT in _training_inputs(config, corpus))
    inputs_LND = read_inputs(trained, batches)
    for name in ("clusters", "random") if control else ("clusters",):
        model = copy.deepcopy(trained)
        units_LEF = [_units(dense, experts, name, layer) for layer, dense in enumerate(dense_ffns(model))]
        split_model(model, split, units_LEF, inputs_LND)
        yield name, model, split


def _units(dense: MLP, experts: int, name: str, layer: int) -> np.ndarray:
    """Which hidden units are which expert's, (E, F)."""
    if name == "random":
        return random_clusters(dense.up.out_features, experts, seed=layer)
    return balanced_clusters(dense.up.weight.detach().cpu().numpy(), experts)


def _training_inputs(config: RunConfig, corpus: PreparedCorpus) -> Iterator[np.ndarray]:
    """The first training batches, (B, T) each."""
    sampler = TrainSampler(corpus.train, config.model.context, config.run.eval_batch, config.run.seed)
    for step in range(-(-FIT_TOKENS // (config.run.eval_batch * config.model.context))):
        yield sampler.batch(step).inputs_BT


def _evaluate(model: GPT, config: RunConfig, corpus: PreparedCorpus, device: torch.device) -> Evaluation:
    """On the validation set of the training's own evaluation."""
    run = config.run
    batches = validation_batches(corpus.validation, config.model.context, run.eval_batch, run.eval_tokens)
    label = config.routing.label
    return evaluate(model, batches, corpus, device, precision=run.precision, label=label, detail=True)


def _point(name: str, threshold: float, evaluation: Evaluation, config: RunConfig, routed: RunConfig) -> Point:
    by_layer = evaluation.rows_per_token["executed_per_token"].values()
    rows = sum(by_layer) / len(by_layer)
    flops = flops_per_token(routed, rows)
    return Point(
        split=name,
        threshold=threshold,
        experts_per_token=rows,
        flops_per_token=flops,
        flops_share=flops / flops_per_token(config),
        loss=_finite(evaluation.loss),
        perplexity=_finite(evaluation.perplexity),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
