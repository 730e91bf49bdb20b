"""A sweep from the command line to its summary: plan, launch what is missing, say what became of all."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from moe_study.errors import ConfigError, StudyError
from moe_study.launch.data import check_data, check_finished
from moe_study.launch.execute import Job
from moe_study.launch.untraced import about_untraced
from moe_study.runs.folder import RunFolder, State, check_writable
from moe_study.runs.overview import state_of
from moe_study.sweeps.compose import Composer
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import TO_RETRY, TO_START, Plan, PlannedRun, flag, plan_command
from moe_study.training.rank import size_of_environment

SHOWN = 5  # runs listed under one reason


@dataclass(frozen=True)
class Launching:
    """How runs get trained. A launcher that returns when its runs have ended only needs `train`."""

    train: Callable[[Plan, Sequence[PlannedRun]], Any]  # does the job with the missing runs of a plan
    joins: bool = False  # whether `train` is called also where no run is missing, to wait for those that others train
    leaves: bool = False  # whether `train` may return while runs are queued or running, as it was asked to
    state: Callable[[RunFolder], State] = RunFolder.state  # as it is now
    reason: Callable[[str], str] = lambda key: ""  # why the run of that key is unfinished, where its folder cannot say


def sweep(
    config: DictConfig, loader: ConfigLoader, arguments: Sequence[str], launching: Launching, job: Job
) -> list[str]:
    """Train what is missing of the sweep that `arguments` describe; the keys of all its runs.

    `config` is Hydra's composed one, for the command's settings; `launching` does `job` with runs and leaves the
    outcome in their folders. Raises StudyError when the plan is invalid, or a run has failed or is unfinished.
    """
    if size_of_environment() > 1:
        raise ConfigError(
            "torchrun starts the processes of one run, and -m is for many; start each run with torchrun train.py"
            " ..., or the sweep without torchrun"
        )
    of_hydra = [str(override) for override in config.hydra.overrides.hydra]  # it is composed with them already
    other_folders = [override for override in of_hydra if "hydra.searchpath" in override]  # matter to runs, too
    plan = plan_command(Composer(loader, other_folders), arguments, project_root())
    plan.check()
    plan = plan.with_states({run.key: _state(run.folder, launching) for run in plan.runs})
    check_finished([run.config for run in plan.runs], job)
    retry_failed = flag({"retry_failed": config.retry_failed}, "retry_failed")
    missing = plan.to_start(retry_failed)
    say(opening(plan, missing))
    if missing:
        check_data([run.config for run in missing], job)
        check_writable(missing[0].config.log.runs_dir)
    plan.record_members()
    if missing or launching.joins:
        launching.train(plan, missing)
    conclude(plan, missing, launching)
    return [run.key for run in plan.runs]


def opening(plan: Plan, missing: Sequence[PlannedRun]) -> str:
    """What is about to happen, in a line or two."""
    states = Counter(run.state for run in plan.runs)
    there = ", ".join(f"{states[state]} {state}" for state in State if states[state])
    left_out = [(plan.excluded, "excluded"), (plan.duplicates, "the same as others"), (len(plan.invalid), "invalid")]
    notes = ", ".join(f"{number} {what}" for number, what in left_out if number)
    lines = [f"{plan.name or 'sweep'}: {len(plan.runs)} runs ({there}); {len(missing)} to train now"]
    if notes:
        lines.append(f"left out: {notes}")
    lines += [same.headline for same in plan.same_points()]
    if plan.invalid:
        lines.append(plan.invalid_listing())
    lines += plan.warnings()
    if (sentence := about_untraced(run.config for run in plan.runs)) is not None:
        lines.append(sentence)
    return "\n".join(lines)


def conclude(plan: Plan, launched: Sequence[PlannedRun], launching: Launching) -> None:
    """Print what became of every run; StudyError when some failed, or some are unfinished and were to be waited for."""
    states = {run.key: _state(run.folder, launching) for run in plan.runs}
    counts = Counter(states.values())
    runs_dir = plan.runs[0].config.log.runs_dir
    listed = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    say(f"{plan.name or 'sweep'}: {listed}; all in {runs_dir}/")
    for line in _failures(plan, states, launching):
        say(line)
    warned = sum(bool(state_of(run.folder).warnings) for run in launched)
    if warned:
        say(f"{warned} of the new results have a warning, which moe-study status lists")
    left = sum(counts[state] for state in TO_START)
    busy = 0 if launching.leaves else counts[State.QUEUED] + counts[State.RUNNING]
    problems = [
        (counts[State.FAILED], "failed; retry_failed=true trains them again"),
        (left, "are unfinished; rerun the command to resume them"),
        (busy, "are being trained by other processes; rerun the command when they have ended"),
    ]
    if sentences := [f"{number} of {len(plan.runs)} runs {what}" for number, what in problems if number]:
        raise StudyError("; ".join(sentences))


def _failures(plan: Plan, states: Mapping[str, State], launching: Launching) -> Iterator[str]:
    """Each reason once, with the runs that it struck."""
    struck: dict[str, list[PlannedRun]] = {}
    for run in plan.runs:
        state = states[run.key]
        why = launching.reason(run.key) if state in TO_START else ""
        if state is State.PREEMPTED or state in TO_RETRY:
            why = "; ".join(filter(None, (_message(run.folder), why)))
        if state in TO_RETRY or why:
            struck.setdefault(f"{state}: {why}", []).append(run)
    for reason, runs in struck.items():
        yield f"  {reason}"
        yield from (f"    {run.folder.path}  {plan.label(run)}" for run in runs[:SHOWN])
        if len(runs) > SHOWN:
            yield f"    and {len(runs) - SHOWN} more"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _message(folder: RunFolder) -> str:
    try:
        return folder.status().message
    except StudyError as error:
        return str(error)


def _state(folder: RunFolder, launching: Launching) -> State:
    try:
        return launching.state(folder)
    except StudyError:
        return State.FAILED
