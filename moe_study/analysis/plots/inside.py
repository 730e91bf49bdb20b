"""Pictures of what the experts attend to: all that the findings of a study, and the routes it kept, allow."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from moe_study.analysis.plots.co_activation import co_activation_maps
from moe_study.analysis.plots.information import information_by_layer
from moe_study.analysis.plots.knockout import knockout_maps
from moe_study.analysis.plots.saturation import saturation_over_training
from moe_study.analysis.plots.shares import lift_maps, share_bars
from moe_study.analysis.plots.style import PointStyle
from moe_study.analysis.probes import ProbeFindings
from moe_study.analysis.study import Part

ON_VALIDATION = "windows of the validation set, the same at every step"


def inside_pictures(part: Part, styles: dict[str, PointStyle]) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of every picture; what was not found is not drawn. Those of a probe are named PROBE/PICTURE."""
    if len(part.saturation) and (page := saturation_over_training(part.saturation, styles, ON_VALIDATION)) is not None:
        yield "routes-over-training", page
    for probe in part.probes:
        for name, pages in _of_probe(probe, styles):
            yield from numbered(f"{probe.name}/{name}", pages)


def _of_probe(probe: ProbeFindings, styles: dict[str, PointStyle]) -> Iterator[tuple[str, list[Figure]]]:
    if len(probe.information):
        yield "information", information_by_layer(probe.information, styles, probe.over("information"))
    if len(probe.shares):
        for of in probe.shares["of"].unique():
            words = of, probe.over("shares"), of in probe.token_labels
            yield f"shares-by-{_as_name(of)}", share_bars(probe.shares, styles, *words)
            yield f"lift-by-{_as_name(of)}", lift_maps(probe.shares, styles, *words)
    if len(probe.co_activation):
        yield "co-activation", co_activation_maps(probe.co_activation, styles, probe.over("co_activation"))
    if len(probe.knockout):
        for of in [of for of in probe.knockout["of"].unique() if of]:
            yield f"knockout-by-{_as_name(of)}", knockout_maps(probe.knockout, styles, of, probe.over("knockout"))


def numbered(name: str, pages: Sequence[Figure]) -> Iterator[tuple[str, Figure]]:
    """(name, page), numbered where there are several."""
    for number, page in enumerate(pages, start=1):
        yield (name if len(pages) == 1 else f"{name}-{number}"), page


def _as_name(label: str) -> str:
    """A label in the name of a file."""
    return "".join(sign if sign.isalnum() else "-" for sign in label)
