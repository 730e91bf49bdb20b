"""Findings of made-up runs with planted routes, as analysis/probes.py hands them to the pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.plots.style import COLOURS, MARKERS, PointStyle
from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.run_tables import COLUMNS, run_table
from moe_study.runs.columns import Holds
from moe_study.runs.findings import write_finding
from moe_study.runs.traces import RoutesPart, TraceIdentity, write_trace
from tests.analysis.specialisation.planted_routes import planted_trace

ON = "probe planted, 1.2k tokens"


def styles_of(*labels: str, leaking: str = "") -> dict[str, PointStyle]:
    """A style for each label, in the order given."""
    return {
        label: PointStyle(label, COLOURS[place % 6], MARKERS[place % 6], "-", leaks=label == leaking)
        for place, label in enumerate(labels)
    }


def layers_of(follow: str, seed: int = 0, layers: int = 2, **options: float) -> dict[int, LayerTrace]:
    """Layers of one run, alike but for the numbers of their experts."""
    first = planted_trace(np.random.default_rng(seed), follow, strength=2.0, **options)
    return {n: replace(first, expert_P=(first.expert_P + n) % first.experts) for n in range(layers)}


def table(name: str, layers: dict[int, LayerTrace], label: str, seed: int = 0, draws: int = 40) -> pd.DataFrame:
    """The finding `name` of one run of the point `label`."""
    found = run_table(name, layers, draws).rename(columns={"label": "of"})
    return found.assign(label=label, point=label, key=f"{label}-{seed}", seed=seed)


def made_up_shares(label: str, experts: int, domains: int, layers: int) -> pd.DataFrame:
    """Shares by topic of one run, every second of them within its band."""
    layer, domain, expert = (axis.ravel() for axis in np.indices((layers, domains, experts)))
    random = np.random.default_rng(0)
    share = random.dirichlet(np.full(experts, 5.0), size=(layers, domains)).ravel()
    high = share * np.where(random.random(len(share)) < 0.5, 0.9, 1.1)
    numbers = {
        "share": share,
        "null_low": 0.5 * share,
        "null_high": high,
        "lift": share * experts,
        "overall": 1 / (expert + 1),
    }
    where = {"layer": layer, "of": "topic", "domain": [f"topic {n:02}" for n in domain], "expert": expert}
    return pd.DataFrame({**where, **numbers}).assign(label=label, point=label, key=label, seed=0, weighted_by="picks")


def knockout(label: str, experts: int, domains: list[str], layers: int = 2, seed: int = 0) -> pd.DataFrame:
    """Made-up changes: expert e costs domain d 0.1 where d = e, and 0.01 elsewhere."""
    rows = [
        {
            "layer": layer, "kind": kind, "expert": expert, "other": -1, "of": "language", "domain": domain,
            "change": sign * (0.1 if place == expert % len(domains) else 0.01) + 0.001 * layer,
            "off_target": 0.01,
            "p": 0.5,
            "null_low": -0.05, "null_high": 0.05, "needed": place == expert % len(domains),
            "share_overall": 1 / (expert + 1),
        }
        for layer in range(layers)
        for kind, sign in (("remove", 1), ("reroute", -1))
        for expert in range(experts)
        for place, domain in enumerate(domains)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(label=label, point=label, key=f"{label}-{seed}", seed=seed)


def keep_findings(folder: Path, layers: dict[int, LayerTrace], names: Sequence[str] = tuple(COLUMNS)) -> TraceIdentity:
    """Write what is found of `layers` into a run's folder, as `moe-study specialise` does."""
    identity = TraceIdentity(folder.name, None, "planted", "ab" * 32)
    facts = {"tokens": 1200, "documents": 40}
    for name in names:
        write_finding(folder / "findings", identity, name, run_table(name, layers, 40), facts)
    return identity


def keep_knockout(folder: Path, changes: pd.DataFrame) -> None:
    """Write made-up changes into a run's folder, as a finding."""
    own = changes.drop(columns=["label", "point", "key", "seed"]).rename(columns={"of": "label"})
    nothing = {Holds.TEXT: "", Holds.AMOUNT: 0, Holds.NUMBER: np.nan}
    others = {name: nothing[holds] for name, holds in FINDING_COLUMNS["knockout"].items() if name not in own}
    own = own.assign(**others)
    identity = TraceIdentity(folder.name, None, "planted", "ab" * 32)
    write_finding(folder / "findings", identity, "knockout", own, {"tokens": 600})


def keep_trace(folder: Path, identity: TraceIdentity, layers: dict[int, LayerTrace]) -> None:
    """Write the trace that the findings were made of."""
    first = layers[0]
    with write_trace(folder / "traces", identity) as writer:
        writer.facts["window"] = 64
        start_D1 = np.concatenate([[0], np.cumsum(np.bincount(first.document_T))])
        writer.add_probe(first.token_T, start_D1, dict(first.document_labels), dict(first.token_labels))
        writer.add_loss(np.zeros(len(first.token_T)))
        for number, layer in layers.items():
            writer.add_layer(number, layer.experts, number)
            writer.add_routes(
                number, RoutesPart(layer.picks_T, layer.expert_P, layer.weight_P, None, layer.entropy_T, layer.margin_T)
            )
