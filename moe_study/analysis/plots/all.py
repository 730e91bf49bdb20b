"""All pictures of one evaluation set, into files."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from moe_study.analysis.plots import fonts
from moe_study.analysis.plots.experts import share_by_domain, share_over_training
from moe_study.analysis.plots.loss import loss_curves, paired_differences, perplexity_against_cost
from moe_study.analysis.plots.style import footer, point_styles, save
from moe_study.analysis.plots.work import experts_per_token
from moe_study.analysis.study import Part
from moe_study.analysis.table import APART, NO_RESULT


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
    sentences = [*_absent_note(part), *part.mixed]
    for name, figure in _figures(part):
        footer(figure, sentences)
        yield name, figure


def _absent_note(part: Part) -> list[str]:
    """How many runs no picture can show, and the points that are missing altogether."""
    if not part.absent:
        return []
    gone = part.table[(part.table["standing"] == NO_RESULT) & part.table["is_point"]]["label"]
    points = f"; no picture shows {', '.join(gone)}" if len(gone) else ""
    return [f"runs without a result, named beside the table: {len(part.absent)}{points}"]


def _figures(part: Part) -> Iterator[tuple[str, Figure]]:
    styles = point_styles(part.runs, apart=frozenset(part.table[part.table["standing"] == APART]["label"]))
    yield "perplexity", perplexity_against_cost(part, styles)
    if len(styles) > 1:
        yield "differences", paired_differences(part, styles)
    if len(part.curves):
        yield "loss-curves", loss_curves(part, styles)
    if len(part.routing_history):
        yield from _numbered("experts-over-training", share_over_training(part.routing_history, styles))
        if (work := experts_per_token(part.routing_history, styles)) is not None:
            yield "experts-per-token", work
    for by in ("language", "topic"):
        if len(part.activations) and part.activations[by].nunique() > 1:
            yield from _numbered(f"experts-by-{by}", share_by_domain(part.activations, styles, by))


def _numbered(name: str, pages: list[Figure]) -> Iterator[tuple[str, Figure]]:
    for number, page in enumerate(pages, start=1):
        yield (name if len(pages) == 1 else f"{name}-{number}"), page
