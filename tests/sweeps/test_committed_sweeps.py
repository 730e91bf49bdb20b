"""What committed sweeps have in common: a header that says enough, and a price at scale=cpu that a laptop can pay."""

import re
from collections.abc import Iterator

import pytest

from moe_study.analysis.results.archive import read_archive
from moe_study.design.config import RunConfig
from moe_study.design.identity import point_of
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import PlannedRun
from moe_study.sweeps.sweep_file import claims_of, find_sweep, read_grid, scales_of, sweep_names
from tests.part import every
from tests.sweeps.golden import plan_of_one_seed

ROOT = project_root()
SCALED = [name for name in sweep_names(ROOT) if scales_of(name, ROOT)]
IN_ISSUE = (
    *("design/table1", "design/table2", "design/table3", "design/fig1_balance", "design/fig3_router_depth"),
    *("xmoe/expert_size", "xmoe/threshold", "xmoe/dense", "xmoe/against_topk"),
    *("softmoe/experts", "softmoe/ablation", "softmoe/causal"),
    *("open/leak", "open/gate", "open/nn_control", "open/balance", "open/granularity", "open/frozen"),
    *("open/collapse_transfer", "open/lr", "open/capacity", "open/dropout", "open/scale"),
)
# FLOPs per second of one core (docs/LOG.md, 2026-11-26): larger models make more of it. Size pico's is in results/.
WIDE, IMAGES = 3.4e10, 3.0e10
CORE_SECONDS = 2 * 15 * 60  # of one sweep: a quarter of an hour of two cores
ALL_CORE_SECONDS = 8 * 3600


@pytest.fixture(scope="module")
def pico_speed():
    runs = read_archive(ROOT / "results" / "first_look").study().parts[0].runs
    return float((3 * runs["flops_per_token"] * runs["tokens"] / runs["train_seconds"]).median())


def seconds(run: PlannedRun, pico_speed: float) -> float:
    config: RunConfig = run.config
    wide = config.model.width >= 64
    return run.train_flops / (IMAGES if config.task == "images" else WIDE if wide else pico_speed)


def header(name: str) -> str:
    text = find_sweep(name, ROOT).read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("#"))


def priced(name: str, composer, pico_speed: float) -> Iterator[tuple[str, float]]:
    """(point, core-seconds of all its seeds) of a sweep at scale=cpu."""
    seeds = len({point["run.seed"] for point in read_grid(f"{name}@cpu", ROOT).points})
    for run in plan_of_one_seed(composer, f"{name}@cpu").runs:
        yield point_of(run.config), seeds * seconds(run, pico_speed)


def test_every_sweep_that_was_asked_for_is_there_at_three_scales():
    assert set(IN_ISSUE) <= set(SCALED)
    assert all(set(scales_of(name, ROOT)) == {"paper", "gpu", "cpu"} for name in SCALED)


@pytest.mark.parametrize("name", every(3, SCALED))
def test_a_header_says_the_command_and_how_many_runs_it_takes(name, composer):
    said = header(name)
    assert f"    python train.py -m +sweep={name} scale=cpu" in said
    number = re.search(r"(\d+) runs at scale=cpu", said)
    grid = read_grid(f"{name}@cpu", ROOT)
    seeds = len({point["run.seed"] for point in grid.points})
    assert number and int(number.group(1)) == seeds * len(plan_of_one_seed(composer, f"{name}@cpu").runs)
    assert seeds >= 5


@pytest.mark.parametrize("name", SCALED)
def test_runs_that_a_header_says_are_those_of_other_sweeps_are_theirs(name, composer):
    """With as many seeds of those as this sweep has."""
    for number, where in re.findall(r"(\d+) of them are\s+those of ([^;.]+)", header(name).replace("\n#", "")):
        others = [other for other in sweep_names(ROOT) if re.search(rf"(?<!\S){other}\b", where)]
        keys = {run.key for other in others for run in plan_of_one_seed(composer, at_cpu(other)).runs}
        shared = keys & {run.key for run in plan_of_one_seed(composer, f"{name}@cpu").runs}
        seeds = len({point["run.seed"] for point in read_grid(f"{name}@cpu", ROOT).points})
        assert others and int(number) == seeds * len(shared), (where, seeds * len(shared))


def at_cpu(name: str) -> str:
    return f"{name}@cpu" if name in SCALED else name


@pytest.mark.parametrize("name", SCALED)
def test_at_scale_cpu_a_sweep_takes_a_quarter_of_an_hour_of_two_cores_at_most(name, composer, pico_speed):
    assert sum(price for _, price in priced(name, composer, pico_speed)) <= CORE_SECONDS


def test_all_sweeps_together_take_eight_core_hours_at_most(composer, pico_speed):
    """Runs that sweeps share are counted once."""
    prices = {point: price for name in SCALED for point, price in priced(name, composer, pico_speed)}
    assert sum(prices.values()) <= ALL_CORE_SECONDS


@pytest.mark.parametrize("name", SCALED)
def test_paper_claims_carry_their_source(name):
    claims = claims_of(name, ROOT)
    assert claims.source or not any(claim.says for claim in claims.claims)
    assert all(claim.why for claim in claims.claims)
