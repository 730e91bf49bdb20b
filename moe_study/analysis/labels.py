"""Short names for design points: the shortest text that tells the points of one frame apart.

A label is a head, which always stands ("dense 2x", "token top-2"), and then only the axes that are needed: of
all sets of axes that tell every point from every other, the smallest. An axis that has words is silent at its
plain value (learned, layer-wise, no balance loss), so "token top-2" stands beside "token top-2, frozen"; and a value
that most points of a head share goes without saying, so among many points of 4 experts stands one "of 6".
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_study.analysis.records import records
from moe_study.design.differences import FOLLOWS
from moe_study.design.identity import is_of_point
from moe_study.design.routing import Selection
from moe_study.design.selections import SELECTIONS

PROMINENT = ("data.name", "model.width", "model.layers")  # come first among settings outside the routing
FEW, USUAL = 4, 0.75  # among at least FEW points, what this share of them says goes without saying
EXHAUSTIVE = 12  # this many varying axes are searched for the smallest set; beyond it, one by one

Row = Mapping[str, Any]
Words = tuple[str, ...]  # what one axis says, point by point


@dataclass(frozen=True)
class Axis:
    """One way in which points can differ, and the words for it ("" where it has nothing to say)."""

    columns: tuple[str, ...]
    words: Callable[[Row], str]

    def of(self, p: Row) -> str:
        """The words for a point; its settings by name where they are of no kind that this version knows."""
        try:
            return self.words(p)
        except (TypeError, ValueError, ArithmeticError):  # of a file that was written by hand, or by a later version
            return ", ".join(_plain_words(column, p.get(column)) for column in self.columns)


def add_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the column `label` for its points; rows whose configuration cannot be read get their
    key.
    """
    frame = frame.drop(columns="label", errors="ignore")
    if "point" not in frame:
        return frame.assign(label=frame["key"], point=frame["key"])
    known = frame["point"].notna()
    points = frame[known & ~frame["point"].duplicated()]
    labels = dict(zip(points["point"], shortest_labels(records(points)), strict=True))
    frame["label"] = frame["point"].map(labels).where(known, frame["key"])
    return frame


def shortest_labels(points: Sequence[Row]) -> list[str]:
    """One label for each of `points` (flattened configurations), different for different configurations."""
    heads = [head_words(p) for p in points]
    axes = [words for words in _words_by_axis(points) if len(set(words)) > 1]
    kinds = [f"{p['routing.unit']} {p['routing.selection']}" for p in points]
    said = [_without_the_usual(words, heads, kinds) for words in _smallest(heads, axes)]
    return [_join(*parts) for parts in zip(heads, *said, strict=True)]


def _without_the_usual(words: Words, heads: Sequence[str], kinds: Sequence[str]) -> Words:
    """`words` with "" where a point says what USUAL of the points of its head say, or, for rare heads, its kind.

    Labels stay different: points of one head leave out the same words, and never where another is silent anyway.
    """
    usual = {}
    for head, kind in dict(zip(heads, kinds, strict=True)).items():
        own = [word for word, other in zip(words, heads, strict=True) if other == head]
        alike = [word for word, other in zip(words, kinds, strict=True) if other == kind]
        group = own if len(own) >= FEW else alike
        (word, times), *_ = Counter(group).most_common(1)
        if len(group) >= FEW and times >= USUAL * len(group) and "" not in own:
            usual[head] = word
    return tuple("" if usual.get(head) == word else word for word, head in zip(words, heads, strict=True))


def _join(head: str, *words: str) -> str:
    label = head
    for word in words:
        label += f" {word}" if word.startswith("of ") else f", {word}" if word else ""
    return label


def _smallest(heads: Sequence[str], axes: Sequence[Words]) -> Sequence[Words]:
    """The smallest set of `axes` that, with the heads, tells apart as many points as all of them do.

    Of sets of one size, the one whose axes stand earlier.
    """

    def apart(chosen: Sequence[Words]) -> int:
        return len(set(zip(heads, *chosen, strict=True)))

    wanted = apart(axes)
    if len(axes) <= EXHAUSTIVE:
        sizes = range(len(axes) + 1)
        candidates = itertools.chain.from_iterable(itertools.combinations(axes, size) for size in sizes)
        return next(chosen for chosen in candidates if apart(chosen) == wanted)
    chosen: list[Words] = []
    while apart(chosen) < wanted:  # each round adds the axis that tells most apart
        chosen.append(max(axes, key=lambda axis: apart([*chosen, axis])))
    return [axis for axis in axes if axis in chosen]


# The words of each axis -----------------------------------------------------------------------------------


def head_words(p: Row) -> str:
    """What the point is at heart: "dense 2x", "token top-2", "sequence threshold 0.9", "soft"."""
    if p["routing.selection"] not in SELECTIONS:  # of a file that was written by hand
        return _text(p["routing.selection"])
    selection, unit = Selection(p["routing.selection"]), _text(p["routing.unit"])
    try:
        return SELECTIONS[selection].words.format(
            unit=unit,
            of_unit="" if unit == "token" else f"{unit} ",
            k=p["routing.k"],
            threshold=p["routing.threshold"],
            multiple=_multiple(p) if selection is Selection.DENSE else 1,
        )
    except (TypeError, ValueError, ArithmeticError):  # as in Axis.of
        return f"{unit} {_text(selection.value)}"


def full_label(p: Row) -> str:
    """The head and all that the axes have to say: what a point is called by itself."""
    return _join(head_words(p), *(axis.of(p) for axis in AXES))


def _multiple(p: Row) -> float:
    """Hidden units of a point's feed-forward networks, or of one expert before a split, over the plain model's."""
    if not _given(p.get("routing.expert_size")):
        return float(p["routing.ffn_multiplier"])
    plain = p["model.ffn_size"] if _given(p["model.ffn_size"]) else 4 * p["model.width"]
    return float(p["routing.expert_size"] / plain)


def _text(value: Any) -> str:
    return str(value).replace("_", " ")


def _experts(p: Row) -> str:
    experts = p["routing.num_experts"]
    return "of " + ("/".join(map(str, experts)) if isinstance(experts, tuple) else f"{experts:g}")


def _router(p: Row) -> str:
    kind = p["routing.router"]
    if kind == "mlp":
        depth, width = p["routing.router_depth"], p.get("routing.router_width")
        wide = f"{width:g}x wide " if _given(width) and width != 1 else ""
        return f"{wide}MLP router" if depth == 1 else f"{wide}{depth:g}-deep MLP router"
    return "" if kind in ("linear", "label") else f"{_text(kind)} router"


def _context(p: Row) -> str:
    context = p["routing.context"]
    if p["routing.router"] == "label":  # the label is all that it reads
        return f"by {p['routing.label']}"
    if context == "prefix" and _given(p.get("routing.prefix_length")):
        return f"prefix {p['routing.prefix_length']:g}"
    return "" if context == "own" else _text(context)


def _unless(name: str, plain: Any, words: Callable[[Any], str]) -> Axis:
    """An axis of one routing setting that is silent at its plain value."""
    column = f"routing.{name}"
    return _routed((column,), lambda p: "" if p[column] == plain or not _given(p[column]) else words(p[column]))


def _routed(columns: tuple[str, ...], words: Callable[[Row], str]) -> Axis:
    """An axis that has nothing to say about a dense point."""
    return Axis(columns, lambda p: "" if p["routing.selection"] == "dense" else words(p))


def _size(p: Row) -> str:
    """How large an expert is against the plain network; in hidden units where that is not a round number."""
    multiple = _multiple(p)
    if multiple == 1:
        return ""
    return f"{multiple:g}x experts" if 8 * multiple % 1 == 0 else f"size {p['routing.expert_size']:g}"


def _embeddings(p: Row) -> str:
    """Embeddings that do not learn have an untied head, which then goes without saying."""
    state = p.get("model.embeddings")
    if _given(state) and state != "learned":
        return f"{state} embeddings"
    tied = p.get("model.tied_head")
    return "untied head" if _given(tied) and not tied else ""


GATES = {
    "softmax_then_pick": "full softmax",
    "pick_then_softmax": "picked softmax",
    "sigmoid": "sigmoid gate",
    "relu": "ReLU gate",
}
AXES = (
    _routed(("routing.num_experts",), _experts),
    _unless("scope", "layer", _text),
    _routed(("routing.context", "routing.prefix_length", "routing.label"), _context),
    _routed(("routing.router", "routing.router_depth", "routing.router_width"), _router),
    _unless("router_state", "learned", _text),
    _unless("shuffle", False, lambda _: "shuffled"),
    _routed(("routing.expert_size",), _size),
    _unless("granularity", 1, lambda v: f"split {v:g} ways"),
    _unless("shared_experts", 0, lambda v: f"{v:g} shared"),
    _unless("balance.switch", 0, lambda v: f"balance {v:g}"),
    _unless("balance.z", 0, lambda v: f"z-loss {v:g}"),
    _unless("balance.bias_rate", 0, lambda v: f"loss-free {v:g}"),
    _unless("capacity.factor", None, lambda v: f"capacity {v:g}"),
    _routed(("routing.gate",), lambda p: GATES.get(p["routing.gate"], _text(p["routing.gate"]))),
    _unless("renormalise", False, lambda _: "renormalised"),
    _unless("layers", "all", lambda v: f"layers {_text(v)}"),
    _unless("segment_length", None, lambda v: f"segments of {v:g}"),
    _unless("first_segment", "prior", lambda v: f"first segment {_text(v)}"),
    _unless("threshold_budget", None, lambda v: f"budget {v:g}"),
    _unless("choice_scope", "sequence", lambda v: f"by {_text(v)}"),
    _unless("soft.form", "sequence", _text),
    _unless("soft.slots_per_expert", 1, lambda v: f"{v:g} slots"),
    _unless("soft.chunk_length", None, lambda v: f"chunks of {v:g}"),
    _unless("soft.group_size", None, lambda v: f"groups of {v:g}"),
    _unless("soft.dispatch", "soft", lambda v: f"{_text(v)} dispatch"),
    _unless("soft.combine", "soft", lambda v: f"{_text(v)} combine"),
    _unless("router_noise", 0, lambda v: f"noise {v:g}"),
    _unless("capacity.priority", "token_major", lambda v: f"priority {_text(v)}"),
    _unless("capacity.group", "sequence", lambda v: f"capacity per {_text(v)}"),
    _unless("balance.scope", "micro_batch", lambda v: f"balance over {_text(v)}"),
    Axis(("model.embeddings", "model.tied_head"), _embeddings),
    _unless("balance.choices", None, lambda v: f"over {'all' if v == 'all' else 'first'} choices"),
)


def _words_by_axis(points: Sequence[Row]) -> list[Words]:
    """What each axis says about each point: AXES, then every other setting that varies, by its own
    name.
    """
    words = [tuple(axis.of(p) for p in points) for axis in AXES]
    named = {column for axis in AXES for column in axis.columns}
    columns = dict.fromkeys(name for p in points for name in p if is_of_point(name))
    # A size that follows another setting comes last: it speaks where nothing else tells points apart.
    ordered = sorted(columns, key=lambda column: (column not in PROMINENT, column in FOLLOWS))
    words += [_setting_words(points, column) for column in ordered if column not in named]
    heads = [head_words(p) for p in points]
    if len(set(zip(heads, *words, strict=True))) < len(points):
        # Two dense points may differ in what dense points ignore: then those settings speak in full.
        words += [_setting_words(points, column) for column in sorted(named)]
    return words


def _setting_words(points: Sequence[Row], column: str) -> Words:
    return tuple(_plain_words(column, p.get(column)) for p in points)


def _plain_words(column: str, value: Any) -> str:
    name = column.partition(".")[2]
    if column == "data.name":
        return str(value)
    short = {"model.width": "width", "model.layers": "layers"}.get(column, name.replace("_", " "))
    if isinstance(value, bool) or value is None:
        return f"{short} {'on' if value else 'off' if value is False else 'unset'}"
    return f"{short} {value:g}" if isinstance(value, int | float) else f"{short} {value}"


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))
