"""All pictures of a frame, into files."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from moe_study.analysis import frame as frames
from moe_study.analysis.plots.experts import share_by_domain, share_over_training
from moe_study.analysis.plots.loss import loss_curves, paired_differences, perplexity_against_cost
from moe_study.analysis.plots.style import point_styles, save
from moe_study.analysis.plots.work import experts_per_token


def draw_all(
    frame: pd.DataFrame, out: Path, reference: str | None = None, problems: list[str] | None = None
) -> list[Path]:
    """PNG and SVG of every picture that the finished runs of one evaluation set allow; returns the paths.

    The same runs give the same bytes. A damaged file of a run raises DataError, or is added to `problems`.
    """
    paths = []
    for name, figure in figures(frames.done(frame), reference, problems):
        paths += save(figure, out, name)
    return paths


def figures(
    frame: pd.DataFrame, reference: str | None = None, problems: list[str] | None = None
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of every picture; see `draw_all`."""
    styles = point_styles(frame)
    yield "perplexity", perplexity_against_cost(frame, styles)
    if frame["label"].nunique() > 1:
        yield "differences", paired_differences(frame, styles, reference)
    curves = frames.curves(frame, problems)
    if len(curves):
        yield "loss-curves", loss_curves(frame, curves, styles, reference)
    history = frames.routing_history(frame, problems)
    if len(history):
        yield from _numbered("experts-over-training", share_over_training(history, styles))
        if (work := experts_per_token(history, styles)) is not None:
            yield "experts-per-token", work
    activations = frames.activations(frame, problems)
    for by in ("language", "topic"):
        if len(activations) and activations[by].nunique() > 1:
            yield from _numbered(f"experts-by-{by}", share_by_domain(activations, styles, by))


def _numbered(name: str, pages: list[Figure]) -> Iterator[tuple[str, Figure]]:
    for number, page in enumerate(pages, start=1):
        yield (name if len(pages) == 1 else f"{name}-{number}"), page
