"""Jobs that train nothing, or slowly, planted in place of the training to test what runs, when, and what is left."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.errors import DataError
from moe_study.launch.execute import Job
from moe_study.runs.folder import RunFolder

PAUSE = 0.05  # seconds after each step
PATIENCE = 300.0  # seconds after which a job that nobody stops gives up; a busy machine may need many of them


def job(name: str) -> Job:
    """The function of that name in this file, as a job."""
    return Job(globals()[name], preload=(__name__,), reads_data=False)


def quick(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Ends at once."""
    folder.append_metrics({"kind": "train", "step": config.total_steps, "loss": 1.0})
    return {"key": folder.key, "validation_perplexity": 2.0 + config.run.seed}


def traced(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Leaves a line at its start and its end in runs/trace, and says what it was given."""
    trace = folder.path.parent / "trace"
    with open(trace, "a") as handle:
        handle.write(f"{time.monotonic()} +1 {config.run.seed}\n")
    time.sleep(0.15)
    with open(trace, "a") as handle:
        handle.write(f"{time.monotonic()} -1 {config.run.seed}\n")
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY")
    given = {name: os.environ.get(name) for name in names}
    return {"given": given, "threads": config.log.threads, "progress": config.log.progress, "process": os.getpid()}


def unlucky(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Fails in a way that its seed chooses, unless the file `luck` lies beside the runs."""
    if (folder.path.parent / "luck").exists():
        return quick(config, folder)
    if config.run.seed == 1:
        raise ValueError("one and one is three")
    if config.run.seed == 2:
        raise DataError("the shard x.bin is damaged; prepare the data again")
    if config.run.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.run.seed == 4:
        os._exit(9)
    if config.run.seed == 5:
        folder.append_metrics({"kind": "train", "step": 3, "loss": float("nan")})
        folder.diverge("the loss is not finite at step 3", 3)
        return {}
    return quick(config, folder)


def patient(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Makes a step now and then until the file `enough` lies beside the runs; saves its step on SIGTERM."""
    received = []
    signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    signal.signal(signal.SIGUSR2, lambda *_: received.append(True))
    saved = folder.path / "saved"
    if saved.exists():
        return {"resumed_from": int(saved.read_text())}
    for step in _steps_of(config):
        if received:
            saved.write_text(str(step))
            folder.preempt(step)
            return {}
        if (folder.path.parent / "enough").exists():
            return {"resumed_from": 0}
        folder.progress(step, force=True)
    raise AssertionError("nobody stopped this run")


def careful(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Like `patient`, and takes a while to save."""
    received: list[bool] = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: received.append(True))
    saved = folder.path / "saved"
    if saved.exists():
        return {"resumed_from": int(saved.read_text())}
    for step in _steps_of(config):
        if received:
            time.sleep(2.5)
            saved.write_text(str(step))
            folder.preempt(step)
            return {}
        folder.progress(step, force=True)
    raise AssertionError("nobody stopped this run")


def _steps_of(config: RunConfig) -> Iterator[int]:
    """Steps of a run that never makes its last one by itself."""
    deadline = time.monotonic() + PATIENCE
    for step in itertools.count(1):
        yield min(step, config.total_steps - 1)
        if time.monotonic() > deadline:
            return
        time.sleep(PAUSE)


def slowly(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Trains for real, and pauses after each step until the file `enough` lies beside the runs.

    After a third of the steps a process waits for that file or for a signal, so that no machine is too fast for what
    a test does to its runs.
    """
    from moe_study.training.run import Session, train

    after_step, made = Session._after_step, 0

    def pause(self: Session) -> None:
        nonlocal made
        after_step(self)
        made += 1
        while not (folder.path.parent / "enough").exists():
            time.sleep(PAUSE)
            if made != config.total_steps // 3 or self.stop.received is not None:
                return

    Session._after_step = pause  # in a process that trains nothing else
    return train(config, folder)


def deaf(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Does not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(folder.path / "deaf").touch()
    time.sleep(60)
    return {}


def compiled(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """Compiles a small function, and says whether that was in the cache."""
    import torch
    from torch._dynamo.utils import counters

    assert torch.compile(lambda x: 2 * x.sin() + 1)(torch.zeros(32)).sum() == 32
    return {"found": counters["inductor"]["fxgraph_cache_hit"], "workers": torch._inductor.config.compile_threads}
