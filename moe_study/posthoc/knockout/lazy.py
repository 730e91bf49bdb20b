"""One trained run without its lazy experts: who contributes how much, and the loss with the least gone.

What an expert contributes was counted over the whole validation set when training ended (routing.parquet); losses are
read here, over a part of that set in the windows and order of evaluation. Kept as two findings on the probe
"validation", `lazy_experts` and `lazy_drops`; their columns stand in analysis/specialisation/lazy.py.

Shape suffixes: S slots of a soft layer, D width, B sequences, T positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.lazy import (
    DROP_COLUMNS,
    EXPERT_COLUMNS,
    LAZY,
    Drop,
    below,
    contributions,
    least,
    numbers_to_drop,
)
from moe_study.data.locks import locked
from moe_study.data.sampler import Batch, labels_of, validation_batches
from moe_study.errors import ConfigError, StudyError
from moe_study.model.moe.soft import SoftLayer
from moe_study.model.transformer import Transformer
from moe_study.posthoc.knockout.interventions import without
from moe_study.posthoc.knockout.plan import deciding_layers
from moe_study.posthoc.trace import Tracer, own_text
from moe_study.runs.findings import find_finding, write_finding
from moe_study.runs.folder import RunFolder

EXPERTS, DROPS, PROBE = "lazy_experts", "lazy_drops", "validation"
VERSION = 2  # goes up when the same weights and text give other numbers
TOKENS, DRAWS = 20_000, 3
Gone = Mapping[int, Sequence[int]]  # layer -> experts


class LazyRun(NamedTuple):
    """Both frames of one run."""

    experts: pd.DataFrame
    drops: pd.DataFrame


def lazy_experts(folder: RunFolder, tokens: int = TOKENS, draws: int = DRAWS, limit: float = LAZY) -> LazyRun:
    """What was asked for, measured unless it is there.

    ConfigError for a limit that is no share; StudyError for a run without experts, checkpoint or text.
    """
    if not 0 < limit < 1:
        raise ConfigError(f"an expert is lazy below a part of an even share, between 0 and 1, not {limit:g}")
    config = folder.read_config()
    if not (layers := deciding_layers(config)):
        raise StudyError("a dense run has no experts, so none of them is lazy")
    corpus, identity = own_text(folder, PROBE)
    facts = {"version": VERSION, "tokens": tokens, "draws": draws, "limit": limit}
    with locked(folder.findings_folder / ".lock"):
        known = [
            find_finding(folder.findings_folder, identity, name, facts, FINDING_COLUMNS[name])
            for name in (EXPERTS, DROPS)
        ]
        if known[0] is not None and known[1] is not None:
            return LazyRun(known[0].table, known[1].table)
        tracer = Tracer.of(folder)
        experts = _experts(folder, tracer.model, layers)
        size = config.model.context, config.run.eval_batch
        batches = list(validation_batches(corpus.validation, *size, tokens))
        drops = pd.DataFrame(_drops(tracer, batches, experts, draws, limit), columns=list(DROP_COLUMNS))
        for name, table in ((EXPERTS, experts), (DROPS, drops)):
            write_finding(folder.findings_folder, identity, name, table, facts)
    return LazyRun(experts, drops)


def _experts(folder: RunFolder, model: Transformer, layers: Sequence[int]) -> pd.DataFrame:
    activations = folder.read_activations()
    if activations is None or not len(activations):
        raise StudyError(f"{folder.routing_file} is missing or empty; {folder.advice_to_retrain}")
    experts = contributions(activations, layers, folder.read_config().routing)
    cosines = {layer: slot_cosines(model.blocks[layer].ffn) for layer in layers}
    for place, name in enumerate(EXPERT_COLUMNS[-2:]):
        found = zip(experts["layer"], experts["expert"], strict=True)
        experts[name] = [cosines[layer][expert][place] if cosines[layer] else np.nan for layer, expert in found]
    return experts[list(EXPERT_COLUMNS)]


@torch.no_grad()
def slot_cosines(layer: Any) -> list[tuple[float, float]]:
    """Of each expert of a soft layer with scores: mean cosine of two of its slots' parameters, and of one with another
    expert's; nan where there is no such pair. Nothing for other layers."""
    if not isinstance(layer, SoftLayer) or layer.scores is None:
        return []
    phi_SD = F.normalize(layer.scores.phi_SD.double(), dim=1)
    each = layer.soft.slots_per_expert
    sum_EE = (phi_SD @ phi_SD.T).unflatten(0, (-1, each)).unflatten(2, (-1, each)).sum((1, 3)).cpu()
    own_E, pairs, others = sum_EE.diagonal(), each * (each - 1), each * each * (len(sum_EE) - 1)
    alike_E = (own_E - each) / pairs if pairs else torch.full_like(own_E, torch.nan)  # less each slot's with itself
    apart_E = (sum_EE.sum(1) - own_E) / others if others else torch.full_like(own_E, torch.nan)
    return list(zip(alike_E.tolist(), apart_E.tolist(), strict=True))


def _drops(
    tracer: Tracer, batches: Sequence[Batch], experts: pd.DataFrame, draws: int, limit: float
) -> Iterator[tuple[Any, ...]]:
    """Rows of DROP_COLUMNS."""
    whole = loss_without(tracer, batches, {})
    yield (str(Drop.NONE), 0, -1, limit, 0.0, whole, 0.0)

    def row(kind: Drop, dropped: int, draw: int, gone: Gone) -> tuple[Any, ...]:
        loss = loss_without(tracer, batches, gone) if gone else whole
        return str(kind), dropped, draw, limit, _share(experts, gone), loss, loss - whole

    lazy = below(experts, limit)
    yield row(Drop.LAZY, sum(map(len, lazy.values())), -1, lazy)
    for number in numbers_to_drop(int(experts["experts"].max())):
        fewest = least(experts, number)
        yield row(Drop.LEAST, number, -1, fewest)
        for draw in range(draws):
            yield row(Drop.RANDOM, number, draw, _at_random(experts, fewest, draw))


def _at_random(experts: pd.DataFrame, like: Gone, draw: int) -> Gone:
    """As many experts of each layer, from a stream of its own for every layer, number and draw."""
    sizes = experts.groupby("layer")["experts"].first()
    return {
        layer: np.random.default_rng([layer, len(own), draw]).permutation(int(sizes[layer]))[: len(own)].tolist()
        for layer, own in like.items()
    }


def _share(experts: pd.DataFrame, gone: Gone) -> float:
    """What these experts contribute, of the whole, mean over layers."""
    pairs = zip(experts["layer"], experts["expert"], strict=True)
    is_gone = np.array([expert in gone.get(layer, ()) for layer, expert in pairs], bool)
    return float(experts["share"].to_numpy()[is_gone].sum() / experts["layer"].nunique())


def loss_without(tracer: Tracer, batches: Sequence[Batch], gone: Gone) -> float:
    """Mean loss over the batches, nats per token, with these experts removed."""
    interventions = {layer: without(*own) for layer, own in gone.items()}
    nats, tokens = 0.0, 0
    for batch in batches:
        inputs_BT, targets_BT, label_B = (
            torch.from_numpy(np.ascontiguousarray(values))
            for values in (batch.inputs_BT, batch.targets_BT, labels_of(batch, tracer.config.routing.label))
        )
        _, loss_BT = tracer.read(inputs_BT, targets_BT, label_B, interventions)
        known_BT: Tensor = targets_BT >= 0
        nats += float(loss_BT.double().cpu()[known_BT].sum())
        tokens += int(known_BT.sum())
    return nats / tokens
