"""What the columns of every finding (runs/findings.py) hold, by its name: who reads one checks it against these.

The columns themselves, and what they mean, stand with what makes them.
"""

from collections.abc import Iterable
from dataclasses import fields

from moe_study.analysis.specialisation import lazy, run_tables
from moe_study.analysis.specialisation.knockout import DomainChange
from moe_study.runs import gradients
from moe_study.runs.columns import Columns, Holds

_TEXTS = {"label", "given", "of", "domain", "weighted_by", "kind", "off_target_domain", "part"}
_LISTS = {"null", "experts_of_labels"}
_PLACES = {
    *("layer", "layers", "expert", "other", "first", "second", "step", "draw", "document", "dropped"),
    *("permutations", "seed", "draws"),
}
_AMOUNTS = {"tokens", "documents"}
_NAMES_OF_DOMAINS = {"first", "second"}  # of `distances`; in `co_activation` they are experts


def _holds(column: str) -> Holds:
    if column in _TEXTS:
        return Holds.TEXT
    if column in _LISTS:
        return Holds.LIST
    if column in _AMOUNTS:
        return Holds.AMOUNT
    return Holds.PLACE if column in _PLACES else Holds.NUMBER


def _kinds(columns: Iterable[str]) -> dict[str, Holds]:
    return {column: _holds(column) for column in columns}


FINDING_COLUMNS: dict[str, Columns] = {
    **{name: _kinds(columns) for name, columns in run_tables.COLUMNS.items()},
    "distances": _kinds(run_tables.COLUMNS["distances"]) | dict.fromkeys(_NAMES_OF_DOMAINS, Holds.TEXT),
    "knockout": _kinds(field.name for field in fields(DomainChange)),
    "knockout_documents": _kinds(("layer", "kind", "expert", "other", "draw", "document", "nats", "moved")),
    "lazy_experts": _kinds(lazy.EXPERT_COLUMNS),
    "lazy_drops": _kinds(lazy.DROP_COLUMNS),
    "gradients": _kinds((*gradients.COLUMNS, "mean_gradient", "agreement")),
}
