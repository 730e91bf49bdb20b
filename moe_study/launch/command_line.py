"""The command line of the training, read before Hydra reads it, so that every mistake in it is one sentence."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from moe_study.errors import ConfigError
from moe_study.sweeps.conf import CONFIG_NAME
from moe_study.sweeps.overrides import parse

FOR_SWEEPS = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "job", "cluster")
FOR_ALL = ("hydra.launcher.threads_per_run", "job.threads_per_run")  # a single run has the threads of one of a sweep


def read(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them, all overrides behind the options; ConfigError for a mistake."""
    parser = get_args_parser()
    parser.__class__ = _Parser
    options, unknown = parser.parse_known_intermixed_args(list(arguments))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; --help lists them, and overrides are KEY=VALUE")
    _check_options(options)
    overrides = parse(options.overrides)
    _check_launcher(overrides)
    several = options.multirun or any(o.key_or_group == "hydra.mode" and o.value() == "MULTIRUN" for o in overrides)
    if not several:
        _check_single(overrides)
    rest = list(arguments)
    for override in options.overrides:
        rest.remove(override)
    return [*rest, *options.overrides]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def _check_options(options: argparse.Namespace) -> None:
    given = [f"--{name.replace('_', '-')}" for name in ("cfg", "info", "shell_completion") if getattr(options, name)]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} exclude each other; use one")
    if given and (options.multirun or options.run):
        started = "--multirun" if options.multirun else "--run"
        raise ConfigError(
            f"{given[0]} shows one configuration and starts nothing: leave {started} out"
            " (moe-study plan lists the runs of a sweep)"
        )
    if options.shell_completion and not options.overrides:
        raise ConfigError("--shell-completion needs install=bash, zsh or fish, or uninstall= one of them")
    if options.run and options.multirun:
        raise ConfigError("--run and --multirun exclude each other; use one")
    for name in ("resolve", "package"):
        if getattr(options, name) and not options.cfg and not options.help:
            raise ConfigError(f"--{name} is a part of --cfg; add --cfg job, or leave it out")
    if options.config_name not in (None, CONFIG_NAME):
        raise ConfigError(
            f"--config-name {options.config_name}: the primary configuration is always {CONFIG_NAME}; leave it out, and"
            " choose files of its groups, such as model=micro"
        )
    if options.experimental_rerun:
        raise ConfigError("--experimental-rerun cannot resume a run; the command that started it does")


def _check_launcher(overrides: Sequence[Override]) -> None:
    """Those of hydra-submitit-launcher may be installed, and know nothing of what runs already."""
    for override in overrides:
        if override.key_or_group == "hydra/launcher" and str(override.value()).startswith("submitit"):
            raise ConfigError(
                f"{override.input_line} submits every run again each time it is issued; hydra/launcher=slurm joins its"
                " jobs"
                if override.value() != "submitit_local"
                else f"{override.input_line} starts all runs at once; leave it out: the launcher of this machine trains"
                " as many runs at a time as it has cores or GPUs"
            )


def _check_single(overrides: Sequence[Override]) -> None:
    for override in overrides:
        key = override.key_or_group
        if key not in FOR_ALL and any(key == part or key.startswith(part + ".") for part in FOR_SWEEPS):
            raise ConfigError(f"{override.input_line} has no effect on a single run, which trains here; add -m")
