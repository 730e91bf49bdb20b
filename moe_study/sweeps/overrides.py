"""Reading overrides, and refusing those that Hydra takes without a word though they do nothing that can be meant."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Sweep

from moe_study.errors import ConfigError
from moe_study.sweeps.conf import choices_of, command_settings, defaults, groups
from moe_study.sweeps.hydra_errors import dotted, hydra_errors_as_sentences, suggestion

FOLDER = "a run lives in log.runs_dir/KEY whatever {key} says; set log.runs_dir instead"
ENVIRONMENT = "{key} does not reach the runs; set the variables of the command itself"
NOTHING = "{key} changes nothing here, neither what is trained nor where it lies; leave it out"
WITHOUT_EFFECT = {  # settings of Hydra, and what to do instead; the first that fits
    "hydra.run.dir": FOLDER,
    "hydra.sweep.dir": FOLDER,
    "hydra.sweep.subdir": FOLDER,
    "hydra.output_subdir": FOLDER,
    "hydra.job.chdir": "a run does not change its working folder whatever {key} says; set log.runs_dir for its files",
    "hydra.job.env_set": ENVIRONMENT,
    "hydra.job.env_copy": ENVIRONMENT,
    "hydra.job": NOTHING,  # what is not named above: its name, its number
    "hydra.runtime": NOTHING,
    "hydra.overrides": NOTHING,
    "hydra.verbose": NOTHING,
}


def parse(overrides: Sequence[str], parser: OverridesParser | None = None) -> list[Override]:
    """Hydra's reading of `overrides`; ConfigError for what it cannot read, and for what would do nothing."""
    with hydra_errors_as_sentences():
        try:
            parsed: list[Override] = (parser or OverridesParser.create()).parse_overrides(list(overrides))
        except ValueError as error:  # a number of too many digits
            raise ConfigError(_about_digits(overrides)) from error
    for override in parsed:
        _check(override)
    return parsed


def _about_digits(overrides: Sequence[str]) -> str:
    """Which of `overrides` holds a number that Python does not read."""
    longest = max(overrides, key=len)
    return f"{longest[:40]}... holds a number of more than 4300 digits; write a smaller one"


def _check(override: Override) -> None:
    key = override.key_or_group
    if not key:
        raise ConfigError(f"{override.input_line} has no key; write KEY=VALUE, such as routing=token_top2")
    if override.is_delete():
        _check_deletion(key)
        return
    value = override.value()
    for setting, advice in WITHOUT_EFFECT.items():
        if key == setting or key.startswith(setting + "."):
            if setting == "hydra.job.chdir" and value is False:
                break
            raise ConfigError(advice.format(key=key))
    _check_hydras(override)
    if key in groups() and override.package is None:
        if override.is_add() or override.is_force_add():
            raise ConfigError(f"{override.input_line}: {key} has a choice already; write {key}=NAME, without +")
        _check_choice(key, value)


def _check_hydras(override: Override) -> None:
    """What a + adds to Hydra's own settings is taken without a word, though Hydra never looks at it."""
    part, _, rest = override.key_or_group.removeprefix("hydra.").partition(".")
    if not override.key_or_group.startswith("hydra.") or not (override.is_add() or override.is_force_add()):
        return
    if part not in {field.name for field in dataclasses.fields(HydraConf)} or (
        rest and part in ("launcher", "sweeper") and override.is_add()
    ):
        raise ConfigError(f"unknown key {override.key_or_group}; --cfg hydra of train.py shows those of Hydra")


def _check_deletion(key: str) -> None:
    """Without its choice or value a known key would silently have its default; only untyped ones can go."""
    if key in groups():
        names = ", ".join(choices_of(key))
        raise ConfigError(f"~{key} would silently train the default of every field; write {key}=NAME, one of {names}")
    if key in (*dotted(defaults()), *dotted(command_settings())):
        raise ConfigError(f"~{key} would silently train its default; write {key}=VALUE")


def _check_choice(group: str, value: Any) -> None:
    """A group takes the name of one of its files, several with -m, or a mapping that sets fields."""
    if isinstance(value, list):
        names = ",".join(map(str, value))
        raise ConfigError(f"{group} takes one file, not {names}; to train each, use -m with {group}={names}")
    if value is None or value == "" or not isinstance(value, str | Sweep | Glob | dict):
        name = "null" if value is None else str(value)
        raise ConfigError(f"{group}={name} is unknown; {suggestion(name, choices_of(group), prefix=group + '=')}")
