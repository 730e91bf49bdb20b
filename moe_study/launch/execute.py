"""One run from claim to end, in the process that trains it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.errors import StudyError
from moe_study.guard import forgiving_output, is_resumable
from moe_study.runs.folder import RunFolder, State, Status
from moe_study.runs.followed import FollowedFolder
from moe_study.training.rank import rank_of_environment


@dataclass(frozen=True)
class Job:
    """What is done with each run of a launch. Handed down to whichever process does it, so `run` must be picklable.

    `run` may end the run itself (finish, diverge, preempt); a run that it leaves running is finished with what it
    returns.
    """

    run: Callable[[RunConfig, RunFolder], Mapping[str, Any] | None]
    preload: tuple[str, ...] = ()  # modules that it needs, which the pool imports once for all runs
    preload_on_gpus: tuple[str, ...] = ()  # and these, where runs have GPUs; what cannot be imported is left out
    reads_data: bool = True  # whether its data must be there before anything starts


def _train(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    from moe_study.training.run import train  # imports torch, which no launching process needs

    return train(config, folder)


# All of our modules that a run can come to need, so that files which change meanwhile change no run of a sweep that is
# on its way. AdamW imports the compiler, whether it is used or not: a second that no run needs to spend by itself.
TRAINING = Job(
    _train,
    preload=(
        "moe_study.training.run",
        "pyarrow.parquet",
        "torch._dynamo",
        "moe_study.model.moe.experts.uncompiled",
    ),
    preload_on_gpus=(
        "moe_study.model.loss_kernels",
        "moe_study.model.moe.experts.fused",
        "moe_study.model.moe.experts.triton_experts",
        "moe_study.model.moe.routing.top_k_kernel",
    ),
)


def execute(config: RunConfig, job: Job = TRAINING, threads: int = 1) -> Status:
    """Do `job` in the folder of `config` and return how it ended; an error is recorded there and raised again.

    An error of the machine (a full disk, no memory) leaves the run preempted, so that the same command resumes it.
    It computes on `threads` CPU threads, unless the configuration says how many (log.threads).
    """
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, threads=config.log.threads or threads))
    if rank_of_environment() > 0:
        return _follow(config, job)
    folder = RunFolder.of(config)
    with forgiving_output(), folder.claim(config):
        if folder.status().state is State.DIVERGED:
            folder.forget_training()  # going on from its checkpoint would diverge again
        folder.start(config.total_steps)
        os.environ.update(compile_caches(folder))
        try:
            if folder.result() is None:  # one that is there was made by the attempt that is recorded
                folder.write_provenance()
            result = job.run(config, folder)
            if folder.status().state is State.RUNNING:
                folder.finish(result or {})
        except (KeyboardInterrupt, SystemExit):
            folder.preempt(folder.status().step)
            raise
        except BaseException as error:
            with contextlib.suppress(StudyError, OSError):  # the first error is the one to see
                if is_resumable(error):
                    folder.preempt(folder.status().step, error)
                else:
                    folder.fail(error)
            raise
        return folder.status()


def _follow(config: RunConfig, job: Job) -> Status:
    """Do this process's part of a run that another one, rank 0, has claimed and records."""
    folder = FollowedFolder.of(config)
    os.environ.update(compile_caches(folder))
    with forgiving_output():
        job.run(config, folder)
    return folder.status()


def compile_caches(folder: RunFolder) -> dict[str, str]:
    """Where all runs beside this one keep what torch.compile and Triton compile, as variables of the environment.

    What the user has set stays. Torch reads the variables when it is imported, so they must be set before.
    """
    places = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    kept = folder.compiled_folder.resolve()
    return {variable: str(kept / name) for variable, name in places.items() if variable not in os.environ}
