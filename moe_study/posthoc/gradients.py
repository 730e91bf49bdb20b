"""Norms of gradients by part of a FINISHED model: its last weights, on batches of its validation set.

That is not what training records (runs/gradients.py): no step is taken from here, text is unseen, dropout and noise
are off, and the gradient is of the language-model loss alone, so that a router's is its own without balancing terms. It
can be had of every run that still has its checkpoint. Kept as the finding `gradients` (runs/findings.py) on the probe
"validation-batches", with the columns of runs/gradients.py (its step is the run's last) and, from SIGNAL on, the two
that several batches give:

norm           root mean square over batches of the norm of one batch's gradient
mean_gradient  norm of the mean gradient of all batches
agreement      what two batches have in common: the mean product of two batches' gradients, over the mean square of one;
               1: all batches give one gradient, 0: nothing but noise. From |mean|^2 = (square + (n - 1) product) / n
               over n batches, as in the noise scale of McCandlish et al. (1812.06162, appendix A.1)
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.data.locks import locked
from moe_study.data.sampler import TrainSampler, labels_of
from moe_study.design.config import RunConfig
from moe_study.posthoc.trace import Tracer, own_text
from moe_study.runs.findings import Finding, find_finding, write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import rows_of
from moe_study.training.device import autocast
from moe_study.training.gradients import GradientNorms

TABLE, PROBE = "gradients", "validation-batches"
SIGNAL = ("mean_gradient", "agreement")
BATCHES = 32  # of as many sequences as a training step has; windows drawn from the whole validation set
VERSION = 1  # goes up when the same weights and text give other numbers
SEED = 0  # of the windows: the same for all runs


def gradients_at_end(folder: RunFolder, batches: int = BATCHES) -> Finding:
    """The finding, measured unless it is there.

    StudyError for a run without a checkpoint or of images, or whose text is not at hand.
    """
    config = folder.read_config()
    corpus, identity = own_text(folder, PROBE)
    facts = {"version": VERSION, "batches": batches}
    with locked(folder.findings_folder / ".lock"):
        found = find_finding(folder.findings_folder, identity, TABLE, facts, FINDING_COLUMNS[TABLE])
        if found is not None:
            return found
        sampler = TrainSampler(corpus.validation, config.model.context, config.run.batch_size, SEED)
        table = measure(Tracer.of(folder), sampler, batches, config.total_steps)
        write_finding(folder.findings_folder, identity, TABLE, table, facts)
    return Finding(table, identity, facts)


def measure(tracer: Tracer, sampler: TrainSampler, batches: int, step: int) -> pd.DataFrame:
    """The table over that many batches; the model's weights stay as they are, and it is left without gradients."""
    model, norms = tracer.model, GradientNorms(tracer.model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums = [torch.zeros_like(parameter) for parameter in trained]
    each = []
    for number in range(batches):
        model.zero_grad(set_to_none=True)
        _loss(tracer, sampler.batch(number)).backward()  # type: ignore[no-untyped-call]
        norms.take(step)
        each.append(rows_of(norms.read()))
        for total, parameter in zip(sums, trained, strict=True):
            if parameter.grad is not None:
                total += parameter.grad
    for total, parameter in zip(sums, trained, strict=True):
        parameter.grad = total / batches
    norms.take(step)
    of_mean = rows_of(norms.read())
    model.zero_grad(set_to_none=True)
    return _over_batches(pd.concat(each, ignore_index=True), of_mean, batches)


def _loss(tracer: Tracer, batch: Any) -> Tensor:
    """The language-model loss of one batch alone, nats per token."""
    config: RunConfig = tracer.config
    inputs_BT, targets_BT, label_B = (
        torch.from_numpy(np.ascontiguousarray(values)).to(tracer.device)
        for values in (batch.inputs_BT, batch.targets_BT, labels_of(batch, config.routing.label))
    )
    with autocast(tracer.device, config.run.precision):
        loss = tracer.model(inputs_BT, targets_BT, label_B=label_B).loss
    assert isinstance(loss, Tensor)
    return loss


def _over_batches(each: pd.DataFrame, of_mean: pd.DataFrame, batches: int) -> pd.DataFrame:
    """Rows of every batch as one row for each layer and part, beside those of the mean gradient."""
    places = ["step", "layer", "part"]
    squares = each.assign(square=each["norm"] ** 2, total=each["active"] * each["mean_active"])
    groups = squares.groupby(places, sort=False)
    table = groups[["experts", "active"]].mean()
    active = groups["active"].sum()
    table["mean_active"] = groups["total"].sum() / active.where(active > 0)
    square = groups["square"].mean()
    table.insert(0, "norm", np.sqrt(square))
    table["mean_gradient"] = of_mean.set_index(places)["norm"]
    product = (batches * table["mean_gradient"] ** 2 - square) / (batches - 1) if batches > 1 else math.nan
    table["agreement"] = product / square.where(square > 0)
    return table.reset_index()
