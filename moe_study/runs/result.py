"""What a run's result.json says, read in one way by everybody."""

import math
from collections.abc import Mapping
from typing import Any

from moe_study.design.accounting import flops_per_token, num_active_params
from moe_study.design.verdict import Verdict
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder


def causality_of(result: Mapping[str, Any]) -> Verdict:
    """What the routing reads: declared by its type or measured by the audit; either is enough.

    A result without any verdict (of an unfinished or foreign file) gives the one of a causal routing.
    """
    verdicts = [result.get(name) or {} for name in ("causality", "causality_measured")]  # older runs have the first
    return Verdict(
        **{
            name: any(bool(verdict.get(name)) for verdict in verdicts)
            for name in ("own_future", "others_future", "mixes_batch")
        }
    )


def executed_costs(folder: RunFolder, result: Mapping[str, Any]) -> dict[str, float]:
    """Active parameters and FLOPs per token of the expert rows that ran; of an older result from its rates.

    Where an older run's configuration cannot be read any more, the nominal ones stand for them.
    """
    names = {"executed_active_params": "num_active_params", "executed_flops_per_token": "flops_per_token"}
    if all(name in result for name in names):
        return {name: result[name] for name in names}
    nominal = {name: result.get(old, math.nan) for name, old in names.items()}
    kept, executed = (result.get(name) for name in ("kept_per_token", "executed_per_token"))
    if not kept or not executed:  # a dense model, or a result from before the rates
        return nominal
    try:
        config = folder.read_config()
        return {
            "executed_active_params": num_active_params(config, {int(layer): rate for layer, rate in kept.items()}),
            "executed_flops_per_token": flops_per_token(config, {int(layer): rate for layer, rate in executed.items()}),
        }
    except (StudyError, LookupError, ValueError, TypeError):
        return nominal
