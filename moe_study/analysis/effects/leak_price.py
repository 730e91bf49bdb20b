"""What reading later tokens is worth, in nats per token: a leaking point beside its causal twin, where one was trained.

A twin is a point whose settings are those of the leaking one but for what makes it leak (design/causal_relatives.py);
lengths that only the twin has (of its prefix, its chunks) may be any.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_study.analysis.comparison import LEVEL, MARGIN, Asked, Comparison, measure
from moe_study.analysis.pairs import settings_of
from moe_study.analysis.records import records
from moe_study.design.causal_relatives import causal_relatives, difference
from moe_study.design.config import RunConfig
from moe_study.design.differences import differing
from moe_study.design.identity import is_of_point
from moe_study.design.identity import settings_of as settings_of_config
from moe_study.design.normal import normalised
from moe_study.design.plain import flatten, from_plain, to_plain
from moe_study.errors import StudyError

FREE_LENGTHS = ("routing.prefix_length", "routing.segment_length", "routing.soft.chunk_length")


@dataclass(frozen=True)
class LeakPrice:
    """The loss of the twin minus that of the leaking point: what it gains by later tokens.

    Where the sweep planned the comparison, it is the tested one, whichever way round it was asked.
    """

    leaking: str  # label
    twin: str
    changed: str  # what the twin has instead, as overrides
    comparison: Comparison

    @property
    def sign(self) -> int:
        """-1 where the comparison was asked as leaking minus twin."""
        return 1 if self.comparison.point == self.twin else -1

    @property
    def nats(self) -> float:
        return self.sign * self.comparison.difference.mean

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval: the tested one where it was tested, otherwise that of the pair alone."""
        chosen = self.comparison.interval if self.comparison.family else self.comparison.difference
        low, high = sorted((self.sign * chosen.low, self.sign * chosen.high))
        return low, high


def leak_prices(
    runs: pd.DataFrame, tested: Sequence[Comparison] = (), margin: float = MARGIN, level: float = LEVEL
) -> tuple[LeakPrice, ...]:
    """The price of every leaking point of `runs` (of one evaluation set, with results) that has a trained twin."""
    known = {frozenset((c.point, c.against)): c for c in tested}
    found = []
    for leaking, twin, changed in twins(runs):
        planned = known.get(frozenset((leaking, twin)))
        (comparison,) = [planned] if planned else measure(runs, [Asked(twin, leaking)], margin, level)
        found.append(LeakPrice(leaking, twin, changed, comparison))
    return tuple(found)


def twins(runs: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(leaking point, causal twin, what the twin has instead), each pair of labels once."""
    points = runs.drop_duplicates("label")
    leaks = points["leaks"].astype(bool)
    settings = settings_of(points)
    causal = [str(label) for label in points[~leaks]["label"]]
    for run in records(points[leaks]):
        seen = set[str]()
        for relative, changed in _relatives(run):
            for label in causal:
                if label not in seen and _is_twin(settings[label], relative):
                    seen.add(label)
                    yield str(run["label"]), label, changed


def _relatives(run: Mapping[Any, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """(settings, what changed) of each causal relative of a run; none where its settings cannot be read."""
    try:
        config = config_of(run)
    except StudyError:
        return
    sequences = config.run.micro_batch or config.run.batch_size
    for relative in causal_relatives(config.routing, config.model.context, sequences):
        settings = settings_of_config(normalised(dataclasses.replace(config, routing=relative)))
        yield settings, difference(config.routing, relative)


def config_of(run: Mapping[Any, Any]) -> RunConfig:
    """The configuration of a row of a frame (see load_frame); what the row does not have is at its default.

    A frame has numbers of one kind in a column, and NaN where nothing is set.
    """
    known = flatten(to_plain(RunConfig()))
    nested: dict[str, Any] = {}
    for name in (str(name) for name in run if name in known or str(name).startswith("data.options.")):
        *sections, last = name.split(".")
        place: dict[str, Any] = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = _plain(run[name])
    config: RunConfig = from_plain(RunConfig, nested)
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return list(value) if isinstance(value, tuple) else value


def _is_twin(settings: Mapping[str, Any], relative: Mapping[str, Any]) -> bool:
    names = tuple(name for name in dict.fromkeys((*relative, *settings)) if is_of_point(name))
    return set(differing(settings, relative, names)) <= set(FREE_LENGTHS)
