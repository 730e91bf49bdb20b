"""What the points' experts follow, in sentences that claim no more than intervals and nulls carry."""

from collections.abc import Iterator, Sequence

import numpy as np

from moe_study.analysis.format import LEAK_MARK, percent, with_leak_mark
from moe_study.analysis.specialisation.points import ALPHA, Point, PointRow, Question

HOW_TO_READ = (
    "information of the expert about the label over the label's entropy, less its mean where the label means nothing;"
    f" in brackets the {percent(0.95)} interval over seeds, each alone. Shown: both the t test over seeds and the null"
    f" of exchanged labels reach {ALPHA:g}; p is the larger of the two, Holm-adjusted over a question's points and"
    " layers. Not shown does not mean absent"
)
LEAK_NOTE = f"{LEAK_MARK} its routing reads later tokens, so it can know a text from what comes after"
GATE_NOTE = "every token has every expert, so experts are weighted by the gate: "


def sentences(points: Sequence[Point], permutations: int, short: bool = False) -> Iterator[str]:
    """A heading for each question and, under it, a line for each point; then what a reader must know.

    `short` has one line for all questions of which nothing is shown at any point (some seeds must have been tested).
    """
    asked = [point for point in points if not point.dense]
    if dense := [point.label for point in points if point.dense]:
        yield f"{', '.join(dense)}: no experts, so there is nothing that they could follow"
    not_shown = [question for question in _questions(asked) if short and _nothing_shown(asked, question)]
    for question in (question for question in _questions(asked) if question not in not_shown):
        yield f"Do experts follow {_words(question)}?"
        yield from (f"  {_line(point, question)}" for point in asked if _rows(point, question))
    if not_shown:
        yield f"Not shown at any point, in any layer: {', '.join(map(_words, not_shown))}"
    if asked:
        yield f"({HOW_TO_READ})"
    if too_few := _too_few(asked, permutations):
        yield too_few
    if any(point.leaks for point in asked):
        yield LEAK_NOTE
    if by_gate := [point.label for point in asked if point.by == "gate"]:
        yield f"{GATE_NOTE}{', '.join(by_gate)}"


def _questions(points: Sequence[Point]) -> list[Question]:
    """All that were measured, but for labels of tokens alone: their null leaves the token id in place, so they ask
    the same as given the token id."""
    found = {row.question: None for point in points for row in point.rows}
    token_labels = frozenset[str]().union(*(point.token_labels for point in points))
    return [question for question in found if question.given or question.label not in token_labels]


def _nothing_shown(points: Sequence[Point], question: Question) -> bool:
    tested = [point for point in points if point.tested]
    return bool(tested) and not any(row.shown for point in tested for row in _rows(point, question))


def _words(question: Question) -> str:
    return f"{question.label} beyond {question.given}" if question.given else question.label


def _rows(point: Point, question: Question) -> list[PointRow]:
    return [row for row in point.rows if row.question == question]


def _line(point: Point, question: Question) -> str:
    name = with_leak_mark(point.label, point.leaks)
    rows = _rows(point, question)
    if not point.tested:
        numbers = ", ".join(f"{_number(row.over_seeds.excess.mean)} in layer {row.layer}" for row in rows)
        return f"{name}: {numbers} (one seed: described, not tested)"
    shown, not_shown = [row for row in rows if row.shown], [row for row in rows if not row.shown]
    parts = []
    if shown:
        parts.append(f"shown in {_layers(shown)}")
    if not_shown:
        parts.append(f"{'not' if shown else 'not shown'} in {_layers(not_shown)}")
    return f"{name}: {', '.join(parts)} ({len(point.seeds)} seeds)"


def _layers(rows: Sequence[PointRow]) -> str:
    found = [f"layer {row.layer} {_measured(row)}" for row in rows]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def _measured(row: PointRow) -> str:
    excess = row.over_seeds.excess
    if np.isnan(excess.mean):
        return "(no token has both a label and a pick)"
    p = "" if np.isnan(row.p_adjusted) else f", p {row.p_adjusted:.2g}"
    return f"({_number(excess.mean)} [{_number(excess.low)}, {_number(excess.high)}]{p})"


def _number(value: float) -> str:
    return "no number" if np.isnan(value) else f"{value:z.4f}"


def _too_few(points: Sequence[Point], permutations: int) -> str:
    """Where so few permutations cannot show anything: the smallest p value that they can give is too large."""
    family = max((row.family for point in points for row in point.rows), default=0)
    needed = int(np.ceil(family / ALPHA)) - 1
    if permutations >= needed:
        return ""
    return (
        f"{permutations} permutations are too few for {family} tests of one question to show all that they could; take"
        f" --permutations {max(needed, 1000)}"
    )
