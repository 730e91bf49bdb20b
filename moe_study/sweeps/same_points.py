"""Points of a plan that are written differently and are one network: what to say about them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from moe_study.design.config import RunConfig
from moe_study.design.identity import SEED, point_of
from moe_study.design.routing import Selection
from moe_study.design.unused import explain_unused

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class SamePoints:
    """Several points, seeds apart, that train the same."""

    points: tuple[str, ...]  # the overrides of each, without those that the whole plan shares
    network: str  # what they are
    reason: str | None  # why

    @property
    def headline(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return f"{len(self.points)} points are one {self.network}{because}"


def same_points(
    runs: Iterable[tuple[RunConfig, Sequence[Overrides], Sequence[str]]], shared: Collection[str]
) -> list[SamePoints]:
    """What to say of runs, each with all overrides that mean it and with those settings that have no effect on it.

    `shared` overrides tell nothing.
    """
    by_point: dict[str, tuple[RunConfig, dict[Overrides, None], dict[str, None]]] = {}
    for config, spellings, unused in runs:
        _, written, names = by_point.setdefault(point_of(config), (config, {}, {}))
        telling = (tuple(o for o in one if o not in shared and not o.startswith(f"{SEED}=")) for one in spellings)
        written |= dict.fromkeys(telling)
        names |= dict.fromkeys(unused)
    return [
        SamePoints(
            tuple(" ".join(one) or "as it stands" for one in written),
            "dense network" if config.routing.selection is Selection.DENSE else "network",
            explain_unused(config, _that_vary(names, written)),
        )
        for config, written, names in by_point.values()
        if len(written) > 1
    ]


def _that_vary(names: Iterable[str], spellings: Collection[Overrides]) -> list[str]:
    """The settings that are not the same in all of `spellings`."""
    given = {name: {tuple(o for o in one if o.partition("=")[0] == name) for one in spellings} for name in names}
    return [name for name, values in given.items() if len(values) > 1]
