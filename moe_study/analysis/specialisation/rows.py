"""All information of one run as rows, and the rows of several seeds as one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_study.analysis.specialisation import nulls
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.nulls import Measured
from moe_study.analysis.statistics import Interval, interval, t_test_p
from moe_study.errors import DataError

TOKEN_ID = "token id"


@dataclass(frozen=True)
class Row:
    """What the experts of one layer know of one label."""

    layer: int  # its place among the layers handed in
    label: str
    given: str  # a label or the token id that is known already; "" for nothing
    measured: Measured


def information_rows(
    layers: Sequence[LayerTrace], by: str = "picks", permutations: int = nulls.PERMUTATIONS, seed: int = 0
) -> list[Row]:
    """Every label of the trace against its null, alone, given the token id, and given each other label of documents.

    `layers` are those of one run that have experts; none gives no rows. Labels that all documents or tokens share are
    left out.
    """
    if not layers:
        return []
    found: dict[tuple[str, str], Sequence[Measured]] = {}
    document_labels = [name for name in layers[0].document_labels if differs(layers[0].document_label(name)[0])]
    for name in document_labels:
        found[name, ""] = nulls.document_label(layers, name, None, by, permutations, seed)
        found[name, TOKEN_ID] = nulls.document_label_given(layers, name, None, by, permutations, seed)
        for other in document_labels:
            if other != name:
                found[name, other] = nulls.document_label(layers, name, other, by, permutations, seed)
    for name, (codes_T, _) in layers[0].token_labels.items():
        if differs(codes_T):
            both = nulls.token_label(layers, codes_T, None, by, permutations, seed)
            found[name, ""] = [each.alone for each in both]
            found[name, TOKEN_ID] = [each.given for each in both]
    found[TOKEN_ID, ""] = nulls.token_id(layers, by, permutations, seed)
    return [
        Row(place, label, given, measured)
        for place in range(len(layers))
        for (label, given), of_layers in found.items()
        for measured in [of_layers[place]]
    ]


@dataclass(frozen=True)
class RowOverSeeds:
    """One row over seeds: a number of the whole layer, so that no experts need matching.

    Two questions, two p values. `p_seeds` (t test of the mean excess): would other seeds show it, on these documents?
    `p_documents` (the null of the mean over seeds, its labels exchanged in the same way for all): would it be there if
    the label meant nothing, whatever tastes for these documents the seeds have in common? A claim needs both.
    """

    layer: int
    label: str
    given: str
    value: Interval
    excess: Interval
    null_mean: float
    null_low: float  # the middle 95% of the null of the mean
    null_high: float
    p_seeds: float
    p_documents: float  # NaN where the seeds were not measured over the same tokens with the same draws


def over_seeds(rows_S: Sequence[Sequence[Row]], level: float = 0.95) -> list[RowOverSeeds]:
    """Rows of the seeds of one point, which must be the same rows in the same order. Errors: DataError otherwise."""
    if not rows_S:
        return []
    keys = [[(row.layer, row.label, row.given) for row in rows] for rows in rows_S]
    if any(key != keys[0] for key in keys):
        raise DataError("the seeds of one point have different layers or labels, so they cannot be averaged")
    found = []
    for rows in zip(*rows_S, strict=True):
        measured = [row.measured for row in rows]
        excess = np.array([each.excess for each in measured])
        null_R = np.mean([each.null_R for each in measured], axis=0) if _same_draws(measured) else np.array([np.nan])
        mean = np.mean([each.value for each in measured])
        reached = 1 + int((null_R >= mean - nulls.SAME).sum())
        low, high = np.quantile(null_R, [(1 - nulls.BAND) / 2, (1 + nulls.BAND) / 2])
        found.append(
            RowOverSeeds(
                rows[0].layer,
                rows[0].label,
                rows[0].given,
                value=interval([each.value for each in measured], level),
                excess=interval(excess, level),
                null_mean=float(np.mean([each.null_mean for each in measured])),
                null_low=float(low),
                null_high=float(high),
                p_seeds=float(t_test_p(excess)),
                p_documents=reached / (1 + len(null_R)) if not np.isnan(null_R).any() else float("nan"),
            )
        )
    return found


def _same_draws(measured: Sequence[Measured]) -> bool:
    return len({(each.permutations, each.seed, each.tokens) for each in measured}) == 1


def differs(codes: np.ndarray) -> bool:
    """Whether a label has two values or more."""
    return len(np.unique(np.asarray(codes)[np.asarray(codes) >= 0])) > 1
