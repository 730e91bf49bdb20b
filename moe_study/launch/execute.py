"""One run from claim to end, in the process that trains it."""

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError, StudyError
from moe_study.runs.folder import RunFolder, State, Status

Job = Callable[[RunConfig, RunFolder], Mapping[str, Any] | None]
TRAIN = "moe_study.training.run:train"
JOB_VARIABLE = "MOE_STUDY_JOB"  # names another function than the training, to test what surrounds it


def execute(config: RunConfig, job: str = TRAIN) -> Status:
    """Train `config` in its folder and return how it ended; an error is recorded there and raised again.

    `job` names an importable function. It may end the run itself (finish, diverge, preempt); a run that it leaves
    running is finished with what it returns.
    """
    folder = RunFolder.of(config)
    with folder.claim(config):
        if folder.status().state is State.DIVERGED:
            folder.forget_training()  # going on from its checkpoint would diverge again
        folder.start(config.total_steps)
        os.environ.update(compile_caches(folder))
        try:
            folder.write_provenance()
            result = load_job(job)(config, folder)
            if folder.status().state is State.RUNNING:
                folder.finish(result or {})
        except (KeyboardInterrupt, SystemExit):
            folder.preempt(folder.status().step)
            raise
        except BaseException as error:
            with contextlib.suppress(StudyError, OSError):  # the first error is the one to see
                folder.fail(error)
            raise
        return folder.status()


def compile_caches(folder: RunFolder) -> dict[str, str]:
    """Where all runs beside this one keep what torch.compile and Triton compile, as variables of the environment.

    What the user has set stays. Torch reads the variables when it is imported, so they must be set before.
    """
    places = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    kept = folder.compiled_folder.resolve()
    return {variable: str(kept / name) for variable, name in places.items() if variable not in os.environ}


def planted_job() -> str:
    """The function that runs shall call: the training, unless the environment names another."""
    return os.environ.get(JOB_VARIABLE) or TRAIN


def check_data(configs: Sequence[RunConfig]) -> None:
    """DataError if a corpus that the training would read is not there, before anything has started."""
    if planted_job() != TRAIN:
        return
    from moe_study.data import open_data  # imports NumPy

    for data in {json.dumps(to_plain(config.data), sort_keys=True): config.data for config in configs}.values():
        open_data(data)


def load_job(name: str) -> Job:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    try:
        found: Job = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the job {name} cannot be imported ({error}); write it as module:function") from error
    return found
