"""How long do sweeps of thousands of runs keep one waiting, though nothing is trained?

    python -m bench.scale                                   some minutes, and 1 GB of disk for a while
    python -m bench.scale --rows "status of 5,000 runs"

The CPU seconds of a whole command, which works on one core: on a quiet machine those of the clock on the wall. One tiny
run is trained; its files are copied into the folders of all others under their own keys and configurations, with losses
of their own, so that every command reads as many and as large files as it would after a real sweep. Jobs are sent to a
private SLURM (tests/slurm/cluster.py) where its daemons are installed, and timed by the clock: others work for them.
"""

import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from bench.common import Row, Skipped, open_results, options, spread
from bench.machine import ROOT
from bench.tiny_runs import Size, TinyRuns
from moe_study.design.config import RunConfig
from moe_study.runs import stored_config
from moe_study.runs.folder import RunFolder
from moe_study.sweeps.plan import plan_overrides
from tests.slurm.cluster import ADVICE, Cluster, missing_programs

PLAN, AGAIN = "plan of 10,000 points", "a finished sweep of 5,000 runs again"
STATUS, FRAME = "status of 5,000 runs", "frame of 5,000 runs"
CURVES, PLOTS = "frame of 200 runs with 1,000 logged steps", "plots of 500 runs at 100 points"
REPORT, HELD = "report of 200 runs with 1,000 logged steps", "5,000 held jobs submitted"
ROWS = (PLAN, AGAIN, STATUS, FRAME, CURVES, PLOTS, REPORT, HELD)
READ_FRAME = "from pathlib import Path; from moe_study.analysis import frame; runs = frame.load_frame([Path('{}')])"
LOG_EVERY, ROUTING_EVERY = 10, 50  # steps between records
HOLD = (
    "hydra/launcher=slurm",
    "hydra.launcher.wait=false",
    "hydra.launcher.options=[--hold]",
    "hydra.launcher.gpus_per_node=0",
)
EXPERTS, SWITCH, PICKS = (4, 8, 16, 32, 64), (0.0, 0.01), (1, 2)
COPIED = ("metrics.jsonl", "routing.parquet", "provenance.json", "tokenizer.json")  # the same for all


class Finished:
    """Sweeps whose runs are all done, below `folder`."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.rounds, self.tiny = rounds, TinyRuns(folder, Size(steps=200))
        self.tiny.sweep("one", 3)  # dense, top-1, top-2
        runs = [RunFolder(path) for path in (folder / "one").iterdir() if (path / "result.json").exists()]
        self.like = next(run for run in runs if run.read_config().routing.k == 2)

    def file(self, name: str, rates: int, seeds: int) -> Path:
        """A sweep file of 20 * `rates` points by `seeds` seeds, whose runs lie below `name`."""
        axes = {
            "routing.num_experts": list(EXPERTS),
            "routing.balance.switch": list(SWITCH),
            "routing.k": list(PICKS),
            "optimizer.lr": [round(1e-3 * 1.01**n, 8) for n in range(rates)],
        }
        content = {"base": self.tiny.base(name), "seeds": list(range(seeds)), "points": [axes]}
        path = self.tiny.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def finish(self, file: Path, logged: int | None = None) -> None:
        """Make all runs of a sweep file look trained; with curves of `logged` steps, or with those of the one."""
        plan = plan_overrides([f"+sweep={file}"])
        draw = random.Random(0)
        for run in plan.runs:
            self._finish(run.config, draw)
            if logged is not None:
                RunFolder.of(run.config).drop_metrics_after(-1)  # into a file of its own
                RunFolder.of(run.config).append_metrics(*self._long_curve(logged, draw))
        plan.record_members()

    def _finish(self, config: RunConfig, draw: random.Random) -> None:
        folder, like = RunFolder.of(config), self.like.path
        folder.path.mkdir(parents=True)
        for name in COPIED:
            if (like / name).exists():
                os.link(like / name, folder.path / name)
        stored_config.write(folder.config_file, config)
        result = json.loads((like / "result.json").read_text(encoding="utf-8"))
        loss = result["validation_loss"] + draw.gauss(0, 0.02) + 0.01 * config.routing.k
        changed = {"key": config.key, "validation_loss": loss, "validation_perplexity": 2.718281828459045**loss}
        (folder.result_file).write_text(json.dumps(result | changed), encoding="utf-8")
        shutil.copyfile(like / "status.json", folder.status_file)

    def _long_curve(self, logged: int, draw: random.Random) -> Iterator[Mapping[str, Any]]:
        """Records like those of the one run, of `logged` steps, with losses and shares of their own."""
        like = self.like.metrics()
        train = next(record for record in like if record["kind"] == "train")
        layers = {record["layer"]: record for record in like if record["kind"] == "routing"}
        for step in range(LOG_EVERY, LOG_EVERY * logged + 1, LOG_EVERY):
            tokens = step * train["tokens"] // train["step"]
            yield {**train, "step": step, "tokens": tokens, "loss": draw.gauss(4, 0.1), "grad_norm": draw.random()}
            if step % ROUTING_EVERY == 0:
                for record in layers.values():
                    yield {**record, "step": step, "share": [draw.random() for _ in record["share"]]}

    def row(self, once: Callable[[], float]) -> Row:
        """Seconds of `once`, one sample a round."""
        seconds = [once() for _ in range(self.rounds)]
        return {**spread(seconds), "unit": "s", "seconds_of": "CPU", "rounds": self.rounds}

    def command(self, arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})) -> float:
        """CPU seconds of a process, which must end well."""
        before = os.times()
        environment = {**self.tiny.environment, **environment, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=self.tiny.folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system


def commands_of(name: str, finished: Finished) -> Callable[[], float]:
    """What measures one row; its sweep is made now, if it needs one."""
    if name == PLAN:
        file = finished.file("planned", rates=50, seeds=10)
        return functools.partial(finished.command, ["-m", "moe_study.cli", "plan", f"+sweep={file}"])
    if name == PLOTS:
        file = finished.file("drawn", rates=5, seeds=5)
        finished.finish(file)
        return functools.partial(finished.command, ["-m", "moe_study.cli", "plots", "drawn", "--out", "plots"])
    if name in (CURVES, REPORT):
        file = finished.file("logged", rates=2, seeds=5)
        if not (finished.tiny.folder / "logged").exists():
            finished.finish(file, logged=1000)
        if name == REPORT:
            return functools.partial(finished.command, ["-m", "moe_study.cli", "report", "logged"])
        read = READ_FRAME.format("logged") + "; frame.curves(runs); frame.routing_history(runs)"
        return functools.partial(finished.command, ["-c", read])
    file = finished.file("done", rates=25, seeds=10)
    if not (finished.tiny.folder / "done").exists():
        finished.finish(file)
    arguments = {
        AGAIN: [str(ROOT / "train.py"), "-m", f"+sweep={file}"],
        STATUS: ["-m", "moe_study.cli", "status", "done"],
        FRAME: ["-c", READ_FRAME.format("done")],
    }[name]
    return functools.partial(finished.command, arguments)


def held_jobs(finished: Finished) -> Row:
    """Seconds from the start of a sweep's command to its end, with all jobs in the queue of a private SLURM, held."""
    if missing := missing_programs():
        raise Skipped(f"SLURM is not here ({', '.join(missing)}); {ADVICE}")
    file = finished.file("held", rates=25, seeds=10)
    command = [str(ROOT / "train.py"), "-m", f"+sweep={file}", *HOLD]
    seconds = []
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder))
        cluster.start()
        try:
            for _ in range(finished.rounds):
                start = time.perf_counter()
                finished.command(command, cluster.environment)
                seconds.append(time.perf_counter() - start)
                held = cluster.run("squeue", "-h", "-r", "-o", "%T").split()
                if held != ["PENDING"] * 5000:
                    raise RuntimeError(f"{len(held)} jobs are in the queue where 5000 should be held")
                cluster.cancel_all()
                shutil.rmtree(finished.tiny.folder / "held")
        finally:
            cluster.stop()
    return {**spread(seconds), "unit": "s", "seconds_of": "wall clock", "rounds": finished.rounds}


def measure(name: str, finished: Finished) -> Row:
    """One row."""
    return held_jobs(finished) if name == HELD else finished.row(commands_of(name, finished))


def main() -> None:
    arguments = options(__doc__, rounds=1, rows=ROWS).parse_args()
    results = open_results(arguments)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        finished = Finished(Path(folder), arguments.rounds)
        for name in arguments.rows:
            results.measure(f"scale: {name}", functools.partial(measure, name, finished))


if __name__ == "__main__":
    main()
