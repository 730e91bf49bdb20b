"""Cost at equal loss that a sweep asks for (`reach:` in compare): how much of it do some points take to reach another?

    compare:
      - reach: [{routing: xmoe_budget}, {routing: token_top1}]   # the points of a curve, and the one to be reached
        by: [expert_flops, flops]                  # one cost or several: of COSTS in runs/members.py
        why: How many of Switch's FLOPs does XMoE need for Switch's loss?
        claim: "half of them"                      # what a source says, in its words ...
        at_most: 0.5                               # ... and as a share of the second side's cost

The first side means several points, the second one exactly. What no single mapping means is written as a list of them:
reach: [[{routing.k: 2}, {routing.k: 4}], {routing: dense}]. It is described with an interval and not tested, so no test
of the file pays for it (analysis/effects/equal_loss.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError
from moe_study.runs.members import COSTS
from moe_study.runs.reaches import PlannedReach
from moe_study.sweeps.candidates import Candidate, keys_of, matching, one_point, resolved
from moe_study.sweeps.partial import Partial, in_file, on_command_line

LEAST_POINTS = 2  # that make a curve
FORM = (
    "reach has two sides, the points of a curve (a mapping from override keys to values, or a list of them) and the "
    "one point whose loss is to be reached, as in [{routing: xmoe_budget}, {routing: token_top1}]"
)


@dataclass(frozen=True)
class ReachQuestion:
    """Costs at equal loss as a sweep file states them."""

    curve: tuple[Partial, ...]  # the points that any of them means
    point: Partial
    by: tuple[str, ...]  # costs
    why: str = ""
    at_most: float | None = None  # claimed, as a share of the second side's cost

    @property
    def text(self) -> str:
        """In one line."""
        return f"the cost of {' or '.join(map(on_command_line, self.curve))} to reach {on_command_line(self.point)}"

    @property
    def identities(self) -> tuple[str, ...]:
        """What tells it from the other requests of its file, one for each cost."""
        return tuple(f"{self.text} by {cost}" for cost in self.by)


def read_reach(entry: Mapping[str, Any], why: str, path: Path) -> ReachQuestion:
    """An entry of compare that has `reach`; ConfigError says what is wrong with it."""
    curve, point = _sides(entry["reach"], path)
    if "by" not in entry:
        raise ConfigError(f"{path}: reach needs by: (the costs that are meant), as in by: {COSTS[-1]}")
    at_most = entry.get("at_most")
    if at_most is not None and (
        isinstance(at_most, bool) or not isinstance(at_most, int | float) or not 0 < at_most < float("inf")
    ):
        raise ConfigError(f"{path}: at_most must be a share of the second side's cost, such as 0.5, not {at_most!r}")
    return ReachQuestion(
        curve, point, costs_of(entry["by"], "by", path), why, None if at_most is None else float(at_most)
    )


def _sides(sides: Any, path: Path) -> tuple[tuple[Partial, ...], Partial]:
    if not isinstance(sides, list) or len(sides) != 2:
        raise ConfigError(f"{path}: {FORM}, not {sides!r}")
    curve, point = sides[0] if isinstance(sides[0], list) else [sides[0]], sides[1]
    if not curve or not all(isinstance(side, dict) and side for side in (*curve, point)):
        raise ConfigError(f"{path}: {FORM}, not {sides!r}")
    for side in (*curve, point):
        if "run.seed" in side:
            raise ConfigError(f"{path}: reach is over all seeds; leave run.seed out of {side!r}")
    return tuple(curve), point


def costs_of(value: Any, key: str, path: Path) -> tuple[str, ...]:
    """The costs that `key` of an entry names, one or a list."""
    costs = value if isinstance(value, list) else [value]
    if not costs or len(set(map(str, costs))) < len(costs) or not all(cost in COSTS for cost in costs):
        listed = ", ".join(COSTS)
        raise ConfigError(f"{path}: {key} must be one of {listed}, or a list of different ones, not {value!r}")
    return tuple(costs)


def resolve_reaches(
    questions: Iterable[ReachQuestion], candidates: Sequence[Candidate]
) -> tuple[tuple[PlannedReach, ...], tuple[str, ...]]:
    """One for each cost with the runs of both sides, and a sentence for each that the points cannot answer."""
    return resolved(questions, candidates, _resolved)


def _resolved(question: ReachQuestion, candidates: Sequence[Candidate]) -> Iterator[PlannedReach]:
    curve = [c for side in question.curve for c in matching(side, candidates)]
    points = {c.point for c in curve}
    if len(points) < LEAST_POINTS:
        said = " or ".join(map(in_file, question.curve))
        raise ConfigError(f"{said} matches one point of the sweep, and a curve needs {LEAST_POINTS}; widen it")
    point = one_point(question.point, candidates)
    if point[0].point in points:
        said = in_file(question.point)
        raise ConfigError(f"{said} is one of the points of the curve that is to reach it; narrow the first side")
    keys = keys_of(curve), keys_of(point)
    for text, cost in zip(question.identities, question.by, strict=True):
        yield PlannedReach(text, cost, *keys, question.why, question.at_most)
