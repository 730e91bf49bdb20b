"""A sweep of tiny runs in a folder of its own, started as a user starts it; to time packing and start-up with."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.machine import ROOT
from moe_study.runs.folder import State, list_runs

TRAIN = str(ROOT / "train.py")
ROUTINGS = ("dense", "token_top1", "token_top2", "token_top2_fine", "sequence_top2")
DOCUMENTS, WORDS = 40, 800  # of made-up text, by bytes


class CommandFailed(Exception):
    """A command ended with an error; with what it said."""


@dataclass(frozen=True)
class Size:
    """What one tiny run trains; as it stands, half a second of one CPU core."""

    layers: int = 2
    width: int = 48
    context: int = 64
    batch_size: int = 8
    steps: int = 80
    eval_tokens: int = 4096
    device: str = "cpu"
    compile: bool = False


class TinyRuns:
    """Sweeps over five routings and as many seeds as it takes, below `folder`; data is made and prepared there once."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_absolute_python_path()])}
        self._write_texts()
        self.data = {
            "data": "local_files",
            "data.options.path": str(folder / "texts"),
            "data.tokenizer.kind": "bytes",
            "data.validation_fraction": 0.1,
            "data.root": str(folder / "data"),
        }
        self._python("-m", "moe_study.cli", "prepare", *_overrides(self.data))

    def sweep(self, name: str, runs: int, *settings: str) -> float:
        """Seconds that `python train.py -m` takes from its start to its end, for `runs` runs below `name`."""
        file = self.folder / f"{name}.yaml"
        seeds = -(-runs // len(ROUTINGS))
        points = [{"routing": routing, "run.seed": seed} for seed in range(seeds) for routing in ROUTINGS]
        file.write_text(yaml.safe_dump({"base": self.base(name), "points": points[:runs]}), encoding="utf-8")
        return self._timed(name, [[TRAIN, "-m", f"+sweep={file}", *settings]])

    def commands(self, name: str, runs: int) -> float:
        """Seconds that as many commands take one after another, of one run each."""
        return self._timed(name, [self.command(name, number) for number in range(runs)])

    def command(self, name: str, number: int) -> list[str]:
        """What Python is started with for one run below `name`."""
        run = [f"routing={ROUTINGS[number % len(ROUTINGS)]}", f"run.seed={number}"]
        return [TRAIN, *_overrides(self.base(name)), *run]

    def base(self, name: str) -> dict[str, object]:
        """What all runs below `name` share, by the keys of the command line."""
        size = self.size
        return {
            **self.data,
            "model.layers": size.layers,
            "model.heads": 2,
            "model.width": size.width,
            "model.context": size.context,
            "run.tokens": None,
            "run.steps": size.steps,
            "run.batch_size": size.batch_size,
            "run.eval_every": 0,
            "run.eval_tokens": size.eval_tokens,
            "run.device": size.device,
            "run.compile": size.compile,
            "log.runs_dir": str(self.folder / name),
        }

    def losses(self, name: str) -> dict[str, list[float]]:
        """Every loss that each run below `name` recorded, in order, by key."""
        return {run.key: [r["loss"] for r in run.metrics() if "loss" in r] for run in list_runs(self.folder / name)}

    def _timed(self, name: str, commands: Sequence[Sequence[str]]) -> float:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        start = time.perf_counter()
        for command in commands:
            self._python(*command)
        seconds = time.perf_counter() - start
        assert all(run.state() is State.DONE for run in list_runs(self.folder / name))
        return seconds

    def _python(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(arguments)} failed:\n{done.stderr}")

    def _write_texts(self) -> None:
        draw = random.Random(0)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8))) for _ in range(500)]
        (self.folder / "texts").mkdir(parents=True)
        for number in range(DOCUMENTS):
            (self.folder / "texts" / f"{number}.txt").write_text(" ".join(draw.choices(words, k=WORDS)) + ".\n")


def _absolute_python_path() -> list[str]:
    """The folders of PYTHONPATH, for processes that work elsewhere."""
    return [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _overrides(values: dict[str, object]) -> list[str]:
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
