"""What was found out about one run on one probe, as the tables that runs/findings.py keeps by these names.

`information`     one row for each layer, label and what is given:
                  value, excess (value - null_mean), null_mean, null_low, null_high, all over the label's entropy; p;
                  permutations, seed (of the draws), nats, label_entropy, tokens, floor, movable, weighted_by (picks or
                  gate), of_tokens (a label of tokens, not of documents), null (the draws, in the same units; the mean
                  over seeds has the mean of these, draw by draw, as its null)
`shares`          for each layer, label (but the position), domain, expert and weighting: weighted_by ("picks": share
                  of assignments, "gate": of gate mass), share (of the domain's tokens, sums to 1 over experts),
                  overall (the same of all domains together), lift (share / overall), tokens (of the domain, that have a
                  pick), null_mean, null_low, null_high (of the share; over `overall` they are the lift's), draws
`load`            for each layer: experts, weighted_by, evenness (coefficient of variation, 0 is even),
                  largest_violation, effective_experts, unused, dropped (share of the picks that a capacity dropped);
                  entropy_ and margin_ with mean, sd, low (5%), median, high (95%) and tokens, of the router
`co_activation`   for each layer, first and second expert (all pairs in both orders, and each with itself):
                  both (tokens), given_first (both / tokens of the first), lift
`paths`           one row for a run with experts: layers, tokens, distinct, distinct_if_independent, entropy,
                  sum_of_entropies, total_correlation, correlation_if_independent (nats)
`distances`       for each layer, label and pair of domains: first, second, distance, low, high, plug_in, floor, p,
                  first_documents, second_documents (Jensen-Shannon distance, 0 to 1)
`agreement`       with a router by that label, for each layer and label: share, chance, bound (the best router of as
                  many experts and picks, the oracle), p, permutations, experts_of_labels (a list: the expert matched to
                  each value, -1 for none)
`committee`       for each layer, label and expert: member, mean_rank, rank_variance, present, and the committee's
                  coverage and chance (the same in every row of a layer and label)
`hidden_state_control`   three numbers of information for each layer and label (language, topic, part of speech, not
                  position), with the columns of `information` and: of ("expert", or "cluster" of what routers read, as
                  many clusters as experts), given ("" or "token id"; "cluster" or "token id and cluster" for what is
                  left of the expert's), routes_explained (information of expert and cluster over the expert's entropy).
                  Made by `control_table`, of the first documents that have CONTROL_TOKENS tokens

Layers are numbered as in the model, experts from 0. A run without experts has tables without rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.specialisation import nulls
from moe_study.analysis.specialisation.agreement import agreement_with_label, paths
from moe_study.analysis.specialisation.domains import domain_distances, shares
from moe_study.analysis.specialisation.hidden_states import hidden_state_control
from moe_study.analysis.specialisation.layer_trace import WEIGHTINGS, Ints, LayerTrace, position_label
from moe_study.analysis.specialisation.load import co_activation, committee, load, spread
from moe_study.analysis.specialisation.nulls import Measured
from moe_study.analysis.specialisation.rows import TOKEN_ID, Row, differs, information_rows
from moe_study.analysis.specialisation.share_nulls import share_nulls

Layers = Mapping[int, LayerTrace]  # by the layer's number in the model
Cells = dict[str, Any]  # one row

POSITION = "position"
CONTROL = "hidden_state_control"
CONTROL_TOKENS = 50_000
CLUSTER = "cluster"
NULL = ("null_mean", "null_low", "null_high")
SPREAD = ("tokens", "mean", "sd", "low", "median", "high")
COLUMNS: dict[str, tuple[str, ...]] = {
    "information": (
        "layer", "label", "given", "value", "excess", *NULL, "p", "permutations", "seed", "nats", "label_entropy",
        "tokens", "floor", "movable", "weighted_by", "of_tokens", "null",
    ),
    "shares": (
        "layer", "label", "domain", "expert", "weighted_by", "share", "overall", "lift", "tokens", *NULL, "draws",
    ),
    "load": (
        "layer", "experts", "weighted_by", "evenness", "largest_violation", "effective_experts", "unused", "dropped",
        *(f"{of}_{part}" for of, part in product(("entropy", "margin"), SPREAD)),
    ),
    "co_activation": ("layer", "first", "second", "both", "given_first", "lift"),
    "paths": (
        "layers", "tokens", "distinct", "distinct_if_independent", "entropy", "sum_of_entropies", "total_correlation",
        "correlation_if_independent",
    ),
    "distances": (
        "layer", "label", "first", "second", "distance", "low", "high", "plug_in", "floor", "p", "first_documents",
        "second_documents",
    ),
    "agreement": ("layer", "label", "share", "chance", "bound", "p", "permutations", "experts_of_labels"),
    "committee": ("layer", "label", "expert", "member", "mean_rank", "rank_variance", "present", "coverage", "chance"),
    CONTROL: (
        "layer", "label", "of", "given", "value", "excess", *NULL, "p", "permutations", "seed", "nats",
        "label_entropy", "tokens", "floor", "movable", "weighted_by", "of_tokens", "routes_explained", "null",
    ),
}  # fmt: skip


def with_position(layers: Layers) -> dict[int, LayerTrace]:
    """The layers with one more label of tokens: the position in the document."""
    return {
        number: replace(layer, token_labels={**layer.token_labels, POSITION: position_label(layer.position_T)})
        for number, layer in layers.items()
    }


def weighting(layers: Layers) -> str:
    """How picks are weighted: alike, and by gate weight where every token has every expert and picks say nothing."""
    of_all = all(len(layer.expert_P) == len(layer.token_T) * layer.experts for layer in layers.values())
    return "gate" if layers and of_all else "picks"


def run_table(name: str, layers: Layers, permutations: int = nulls.PERMUTATIONS) -> pd.DataFrame:
    """The table of that name; the labels are those that `layers` have (`with_position` adds one)."""
    rows = TABLES[name](layers, permutations) if layers else []
    return pd.DataFrame(rows, columns=list(COLUMNS[name]))


def _information(layers: Layers, permutations: int) -> list[Cells]:
    by, numbers = weighting(layers), list(layers)
    rows = information_rows(list(layers.values()), by, permutations)
    token_labels = layers[numbers[0]].token_labels
    return [
        {
            "layer": numbers[row.layer],
            "label": row.label,
            "given": row.given,
            "weighted_by": by,
            "of_tokens": row.label in token_labels,
            **cells_of(row.measured),
        }
        for row in rows
    ]


def cells_of(measured: Measured) -> Cells:
    """All that is known of one number of information."""
    cells = {name: value for name, value in vars(measured).items() if name != "null_R"}
    return {**cells, "excess": measured.excess, "null": measured.null_R.tolist()}


def measured_of(row: Any) -> Measured:
    """The number of information that a row of `information` holds."""
    names = (name for name in Measured.__dataclass_fields__ if name != "null_R")
    return Measured(**{name: getattr(row, name) for name in names}, null_R=np.asarray(row.null, dtype=float))


def information_of(table: pd.DataFrame) -> list[Row]:
    """The rows of a table `information`, as `rows.information_rows` has made them: layers numbered by their place."""
    place = {number: place for place, number in enumerate(dict.fromkeys(table["layer"]))}
    rows: Iterator[Any] = table.itertuples()
    return [Row(place[row.layer], row.label, row.given, measured_of(row)) for row in rows]


def control_table(
    layers: Layers, cluster_of: Mapping[int, Ints], permutations: int = nulls.PERMUTATIONS
) -> pd.DataFrame:
    """The table `hidden_state_control` of layers cut to `first_documents`, and the cluster of each of their tokens.

    Layers without clusters are left out.
    """
    by, rows = weighting(layers), []
    for number, layer in layers.items():
        for label in (label for label in _labels(layers) if label != POSITION and number in cluster_of):
            control = hidden_state_control(layer, cluster_of[number], label, by, permutations)
            of_tokens = label in layer.token_labels
            known, both = (TOKEN_ID, f"{TOKEN_ID} and {CLUSTER}") if of_tokens else ("", CLUSTER)
            for of, given, measured in (
                ("expert", known, control.expert),
                (CLUSTER, known, control.cluster),
                ("expert", both, control.expert_given_cluster),
            ):
                named = {"layer": number, "label": label, "of": of, "given": given, "of_tokens": of_tokens}
                by_cells = {"weighted_by": by, "routes_explained": control.routes_explained}
                rows.append({**named, **by_cells, **cells_of(measured)})
    return pd.DataFrame(rows, columns=list(COLUMNS[CONTROL]))


def _shares(layers: Layers, permutations: int) -> list[Cells]:
    found = []
    for label, by in product((label for label in _labels(layers) if label != POSITION), WEIGHTINGS):
        null_of_layers = share_nulls(list(layers.values()), label, by, permutations)
        for (number, layer), null in zip(layers.items(), null_of_layers, strict=True):
            measured = shares(layer, label, by)
            overall_E = load(layer, by).share_E
            for place, domain in enumerate(measured.names):
                for expert in range(layer.experts):
                    found.append(
                        {
                            "layer": number,
                            "label": label,
                            "domain": domain,
                            "expert": expert,
                            "weighted_by": by,
                            "share": measured.share_LE[place, expert],
                            "overall": overall_E[expert],
                            "lift": measured.lift_LE[place, expert],
                            "tokens": measured.tokens_L[place],
                            "null_mean": null.mean_LE[place, expert],
                            "null_low": null.low_LE[place, expert],
                            "null_high": null.high_LE[place, expert],
                            "draws": null.draws,
                        }
                    )
    return found


def _load(layers: Layers, _permutations: int) -> list[Cells]:
    by = weighting(layers)
    return [{"layer": number, "weighted_by": by, **_load_of(layer, by)} for number, layer in layers.items()]


def _load_of(layer: LayerTrace, by: str) -> Cells:
    measured = load(layer, by)
    spreads = {"entropy": spread(layer.entropy_T), "margin": spread(layer.margin_T)}
    return {
        "experts": layer.experts,
        "evenness": measured.variation,
        "largest_violation": measured.largest_violation,
        "effective_experts": measured.effective_experts,
        "unused": measured.unused,
        "dropped": float(1 - np.mean(layer.kept_P)) if len(layer.kept_P) else float("nan"),
        **{f"{of}_{part}": value for of, values in spreads.items() for part, value in asdict(values).items()},
    }


def _co_activation(layers: Layers, _permutations: int) -> list[Cells]:
    found = []
    for number, layer in layers.items():
        measured = co_activation(layer)
        given_first_EE, lift_EE = measured.given_first_EE, measured.lift_EE
        for first, second in product(range(layer.experts), repeat=2):
            found.append(
                {
                    "layer": number,
                    "first": first,
                    "second": second,
                    "both": measured.both_EE[first, second],
                    "given_first": given_first_EE[first, second],
                    "lift": lift_EE[first, second],
                }
            )
    return found


def _paths(layers: Layers, _permutations: int) -> list[Cells]:
    measured = paths(list(layers.values()))
    return [{"layers": len(layers), **asdict(measured), "total_correlation": measured.total_correlation}]


def _distances(layers: Layers, permutations: int) -> list[Cells]:
    found = []
    for (number, layer), label in product(layers.items(), _document_labels(layers)):
        for distance in domain_distances(layer, label, weighting(layers), resamples=permutations):
            first_documents, second_documents = distance.documents
            cells = {**asdict(distance), "first_documents": first_documents, "second_documents": second_documents}
            found.append({"layer": number, "label": label, **cells})
    return found


def _agreement(layers: Layers, permutations: int) -> list[Cells]:
    found = []
    for (number, layer), label in product(layers.items(), _document_labels(layers)):
        codes_D, values = layer.document_label(label)
        measured = agreement_with_label(layer, codes_D, weighting(layers), permutations)
        matched = [measured.expert_of_label.get(value, -1) for value in range(len(values))]
        cells = {**asdict(measured), "permutations": permutations, "experts_of_labels": matched}
        found.append({"layer": number, "label": label, **cells})
    return found


def _committee(layers: Layers, _permutations: int) -> list[Cells]:
    found = []
    for (number, layer), label in product(layers.items(), _document_labels(layers)):
        measured = committee(layer, label)
        for expert in range(layer.experts):
            found.append(
                {
                    "layer": number,
                    "label": label,
                    "expert": expert,
                    "member": expert in measured.members,
                    "mean_rank": measured.mean_rank_E[expert],
                    "rank_variance": measured.rank_variance_E[expert],
                    "present": measured.present_E[expert],
                    "coverage": measured.coverage,
                    "chance": measured.chance,
                }
            )
    return found


def _labels(layers: Layers) -> list[str]:
    """All that differ, of documents and of tokens."""
    first = next(iter(layers.values()))
    return [*_document_labels(layers), *(name for name, (codes, _) in first.token_labels.items() if differs(codes))]


def _document_labels(layers: Layers) -> list[str]:
    first = next(iter(layers.values()))
    return [name for name in first.document_labels if differs(first.document_label(name)[0])]


TABLES: dict[str, Callable[[Layers, int], Sequence[Cells]]] = {
    "information": _information,
    "shares": _shares,
    "load": _load,
    "co_activation": _co_activation,
    "paths": _paths,
    "distances": _distances,
    "agreement": _agreement,
    "committee": _committee,
}
