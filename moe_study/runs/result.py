"""What a run's result.json says, read in one way by everybody."""

from collections.abc import Mapping
from typing import Any

from moe_study.design.verdict import Verdict


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
