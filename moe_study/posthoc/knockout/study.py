"""Every finished run of a frame knocked out over one probe, for statements over seeds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.frame import done
from moe_study.analysis.specialisation.knockout import Kind
from moe_study.analysis.specialisation.knockout_points import PERMUTATIONS, RunOfPoint, run_of_point
from moe_study.data import places
from moe_study.data.probes import DEFAULT_PROBE, Probe
from moe_study.data.probes.overlap import kept_overlap
from moe_study.data.probes.prepared import check_probe
from moe_study.design.routing import Selection
from moe_study.errors import ConfigError
from moe_study.posthoc.knockout.find import DRAWS, knock_out
from moe_study.posthoc.knockout.in_turn import ask_in_turn
from moe_study.posthoc.trace import probe_of, training_corpus
from moe_study.runs.folder import RunFolder

TOKENS = 20_000  # of the probe: about 85 texts of wiki_topics, half a minute for a run of the size pico


@dataclass(frozen=True)
class KnockoutWish:
    """Which probe, how much of it, and what to do."""

    probe: str = DEFAULT_PROBE
    tokens: int = TOKENS
    layers: tuple[int, ...] | None = None  # None: all that decide
    kinds: tuple[Kind, ...] = tuple(Kind)
    draws: int = DRAWS  # of each null
    permutations: int = PERMUTATIONS
    path: Path | None = None  # the folder of local_files
    data_root: Path | None = None  # where probes are kept; None: each run's own

    def check(self) -> None:
        """ConfigError for what no run could be put through."""
        check_probe(self.probe, self.tokens)
        if self.draws < 1:
            raise ConfigError(f"{self.draws} draws give no null; take at least 1, or better {DRAWS} or more")


@dataclass
class KnockedRuns:
    """What came of it."""

    runs: list[RunOfPoint]
    left_out: list[str]  # a sentence for each run that could not be knocked out
    notes: list[str]  # on the probe


def knock_out_runs(frame: pd.DataFrame, wish: KnockoutWish, say: Callable[[str], None] = print) -> KnockedRuns:
    """Knock out the finished runs of `frame` (analysis.frame.load_frame), with a line for each through `say`.

    A run that cannot be is left out with its sentence. Errors: ConfigError for a wish that no run could meet.
    """
    wish.check()
    finished = done(frame)
    is_dense = finished["routing.selection"] == Selection.DENSE
    notes: dict[str, None] = {}  # on the probe, each once

    def ask(folder: RunFolder, run: Any) -> RunOfPoint:
        probe = probe_of(folder, wish.probe, data_root=wish.data_root, path=wish.path, tokens=wish.tokens)
        knocked = knock_out(folder, probe, wish.layers, wish.kinds, wish.draws)
        notes.update(dict.fromkeys([*probe.notes, _shared(folder, probe)]))
        return run_of_point(run.label, int(run.seed), bool(run.leaks), knocked, wish.permutations)

    found, left_out = ask_in_turn(finished[~is_dense], ask, "knocked out", say)
    if is_dense.any():
        dense = ", ".join(dict.fromkeys(finished["label"][is_dense]))
        left_out.append(f"{dense}: a dense run has no experts, so nothing can be taken away from it")
    return KnockedRuns([run for _, run in found], left_out, list(notes))


def _shared(folder: RunFolder, probe: Probe) -> str:
    """What the probe shares with the text that the run was trained on."""
    corpus = training_corpus(folder)
    if corpus is None:
        return "the training text is not here, so what the probe shares with it was not counted"
    return kept_overlap(probe, corpus, places.data_root(folder.read_config().data)).sentence
