"""What would be found out about runs whose routes are planted: all tables, nothing trained."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moe_study.analysis.specialisation.over_runs import RunFindings
from moe_study.analysis.specialisation.run_tables import CONTROL, TABLES, control_table, run_table, with_position
from tests.analysis.specialisation.planted_routes import planted_trace

PERMUTATIONS = 119
LAYERS = (1, 3)  # their numbers in the model


def planted_runs(
    follow: str,
    point: str,
    seeds: int = 4,
    leaks: bool = False,
    explained: bool = False,
    names: Sequence[str] = tuple(TABLES),
) -> list[RunFindings]:
    """Runs of a point over one probe: layer 1 follows what it is told to, layer 3 nothing.

    `names` of tables, and always the hidden-state control, whose clusters follow the same as the
    experts (`explained`), or nothing.
    """
    probe = planted_trace(np.random.default_rng(5), follow, 1.5)
    found = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        tokens, experts = len(probe.token_T), probe.experts
        number_of_expert_E = random.permutation(experts)  # experts have no identity across seeds
        noise_T = random.random(tokens) < 0.1
        own_T = np.where(noise_T, random.integers(experts, size=tokens), number_of_expert_E[probe.expert_P])
        layers = with_position(
            {1: replace(probe, expert_P=own_T), 3: replace(probe, expert_P=random.integers(experts, size=tokens))}
        )
        codes_T, _ = probe.label("language" if follow == "nothing" else follow)
        cluster_T = codes_T if explained else random.integers(probe.experts, size=tokens)
        tables = {name: run_table(name, layers, PERMUTATIONS) for name in names}
        tables[CONTROL] = control_table(layers, dict.fromkeys(LAYERS, cluster_T), PERMUTATIONS)
        found.append(RunFindings(point, seed, leaks, f"{point}-{seed}", tables))
    return found


def dense_runs(point: str = "dense", seeds: int = 2) -> list[RunFindings]:
    """Runs without experts."""
    tables = {**{name: run_table(name, {}) for name in TABLES}, CONTROL: control_table({}, {})}
    return [RunFindings(point, seed, False, f"{point}-{seed}", tables) for seed in range(seeds)]
