"""All pictures of one evaluation set, into files."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from moe_study.analysis.gradients import gradient_history
from moe_study.analysis.plots import fonts, gradients
from moe_study.analysis.plots.equal_loss import costs_at_equal_loss
from moe_study.analysis.plots.experts import share_by_domain, share_over_training
from moe_study.analysis.plots.inside import inside_pictures, numbered
from moe_study.analysis.plots.loss import loss_curves, paired_differences, perplexity_against_cost
from moe_study.analysis.plots.style import PointStyle, footer, point_styles, save
from moe_study.analysis.plots.trends import differences_over_size
from moe_study.analysis.plots.work import experts_per_token
from moe_study.analysis.study import Part
from moe_study.analysis.table import APART, NO_RESULT

MOST_POINTS = 30  # that a reader can tell apart in one picture


def draw_all(part: Part, out: Path) -> list[Path]:
    """PNG and SVG of every picture that the finished runs of `part` allow; returns the paths.

    The same runs give the same bytes. A damaged file of a run, and characters that no font has, are told in
    part.problems.
    """
    paths: list[Path] = []
    missing: set[str] = set()
    for name, figure in figures(part):
        missing.update(fonts.choose_fonts(figure))
        paths += save(figure, out, name)
    if missing:
        part.problems.append(fonts.sentence("".join(sorted(missing))))
    return paths


def figures(part: Part) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of every picture; see `draw_all`."""
    drawn = readable(part)
    styles = styles_of(drawn)
    yield from _with_footers(part, drawn, itertools.chain(_figures(drawn, styles), inside_pictures(drawn, styles)))


def figures_inside(part: Part) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of those alone that look inside the experts."""
    drawn = readable(part)
    yield from _with_footers(part, drawn, inside_pictures(drawn, styles_of(drawn)))


def readable(part: Part) -> Part:
    """`part` with as many points as pictures can hold: the first of its table, and the reference."""
    labels = list(part.table[part.table["standing"] != NO_RESULT]["label"])
    if len(labels) <= MOST_POINTS:
        return part
    others = [label for label in labels if label != part.reference]
    chosen = {part.reference, *others[: MOST_POINTS - 1]}
    frame, table = (each[each["label"].isin(chosen)] for each in (part.frame, part.table))
    return replace(part, frame=frame, table=table)


def styles_of(part: Part) -> dict[str, PointStyle]:
    """How every point of `part` is drawn."""
    return point_styles(part.runs, apart=frozenset(part.table[part.table["standing"] == APART]["label"]))


def _with_footers(
    part: Part, drawn: Part, pictures: Iterable[tuple[str, Figure]]
) -> Iterator[tuple[str, Figure]]:
    sentences = [*_selection_note(part, drawn), *_absent_note(part), *part.mixed]
    for name, figure in pictures:
        footer(figure, sentences)
        yield name, figure


def _selection_note(part: Part, drawn: Part) -> list[str]:
    """How many points are not drawn."""
    points, shown = (each.runs["label"].nunique() for each in (part, drawn))
    if shown == points:
        return []
    return [f"{shown} of {points} points: the first of the table, which has all, and {part.reference}"]


def _absent_note(part: Part) -> list[str]:
    """How many runs no picture can show, and the points that are missing altogether."""
    if not part.absent:
        return []
    gone = part.table[(part.table["standing"] == NO_RESULT) & part.table["is_point"]]["label"]
    points = f"; no picture shows {', '.join(gone)}" if len(gone) else ""
    return [f"runs without a result, named beside the table: {len(part.absent)}{points}"]


def _figures(part: Part, styles: dict[str, PointStyle]) -> Iterator[tuple[str, Figure]]:
    yield "perplexity", perplexity_against_cost(part, styles)
    if part.table["pairs"].fillna(0).gt(0).any():
        yield "differences", paired_differences(part, styles)
    if (over_size := differences_over_size(part.trends)) is not None:
        yield "trends", over_size
    if (at_equal_loss := costs_at_equal_loss(part.reaches)) is not None:
        yield "equal-loss", at_equal_loss
    if len(part.curves):
        yield "loss-curves", loss_curves(part, styles)
    norms = gradient_history(part.runs, part.problems)
    if (figure := gradients.over_training(norms, styles, gradients.units_of(part.runs))) is not None:
        yield "gradients", figure
    if len(part.routing_history):
        yield from numbered("experts-over-training", share_over_training(part.routing_history, styles))
        if (work := experts_per_token(part.routing_history, styles)) is not None:
            yield "experts-per-token", work
    for by in ("language", "topic"):
        if len(part.activations) and part.activations[by].nunique() > 1:
            yield from numbered(f"experts-by-{by}", share_by_domain(part.activations, styles, by))
