"""Hydra's part: overrides in, one typed and validated RunConfig out.

The defaults of all fields stand in the dataclasses alone; they enter Hydra as the stored config `study_defaults`,
so that the files in conf/ hold only what differs, and a misspelt override meets a closed structure.
"""

import contextlib
import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from moe_study.design.config import RunConfig
from moe_study.design.matching import Match, Solution, resolve_match
from moe_study.design.normal import normalised
from moe_study.design.plain import flatten, from_plain
from moe_study.design.unused import explain_unused
from moe_study.design.validation import validate
from moe_study.errors import ConfigError
from moe_study.sweeps.conf import SETTINGS, defaults, project_root
from moe_study.sweeps.files_once import FilesOnce
from moe_study.sweeps.group_files import compose_groups
from moe_study.sweeps.hydra_errors import hydra_errors_as_sentences
from moe_study.sweeps.overrides import parse

HYDRA_VERSION_BASE = "1.3"

ConfigStore.instance().store(name="study_defaults", node=defaults())


def as_plain(composed: DictConfig) -> dict[str, Any]:
    """The sections as plain Python, with every value found out that refers to another."""
    with hydra_errors_as_sentences():
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(name): section for name, section in plain.items()}


def read(plain: Mapping[str, Any]) -> tuple[RunConfig, Match]:
    """The typed configuration as it is written; ConfigError for an unknown key or a value of the wrong kind."""
    sections = {name: section for name, section in plain.items() if name not in SETTINGS}
    match = from_plain(Match, sections.pop("match", {}), "match.")
    return from_plain(RunConfig, sections), match


def resolve_run(config: RunConfig, match: Match) -> tuple[RunConfig, Solution | None]:
    """The configuration that will be trained, in its one spelling, and how well its sizes match.

    ConfigError if it has no meaning.
    """
    validate(config)
    solved, solution = resolve_match(config, match)
    if solved is not config:
        validate(solved)
    return normalised(solved), solution


def run_config(composed: DictConfig) -> RunConfig:
    """The typed, validated, matched and normalised configuration; ConfigError says in one sentence what is wrong."""
    return resolve_run(*read(as_plain(composed)))[0]


def given_settings(overrides: Iterable[Override]) -> tuple[str, ...]:
    """Dotted names of the settings that overrides give a value to; a mapping gives one to each of its own."""
    given: dict[str, None] = {}
    for override in overrides:
        value, name = None if override.is_delete() else override.value(), override.key_or_group
        given |= dict.fromkeys(flatten(value, f"{name}.") if isinstance(value, Mapping) else [name])
    return tuple(given)


def warning_of_unused(composed: DictConfig, overrides: Sequence[str]) -> str | None:
    """One line about the settings that somebody gave on the command line and that have no effect; None without any."""
    config, _ = read(as_plain(composed))
    with hydra_errors_as_sentences():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    return explain_unused(config, given_settings(parsed))


class Composed(NamedTuple):
    """One composed point: its untyped sections, which file was chosen of each group, and which settings were given."""

    plain: Mapping[str, Any]  # shares what it can with other points
    choices: Mapping[str, str | None]
    given: tuple[str, ...] = ()  # dotted names, of overrides alone and not of files

    def value(self, key: str) -> Any:
        """The value with that dotted name; KeyError where there is none."""
        value: Any = self.plain
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(key)
            value = value[part]
        return value


class _Files(NamedTuple):
    """What a choice of files gives, before values are set."""

    config: DictConfig
    plain: Mapping[str, Any] | None  # None where a value refers to another, or is to be given yet
    choices: Mapping[str, str | None]


class Composer:
    """Composes many points quickly: the files of a choice of groups are read once, values are set on a copy.

    `fixed` overrides come before those of each point. Gives the same configuration as Hydra does for the point.
    """

    def __init__(self, loader: ConfigLoader, fixed: Sequence[str] = ()) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        if not isinstance(loader.repository, FilesOnce):
            loader.repository = FilesOnce(loader.repository)  # type: ignore[assignment]  # of the same interface
        self._loader = loader
        self._fixed = list(fixed)
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._files: dict[tuple[str, ...], _Files] = {}
        self._group_exists = functools.cache(loader.repository.group_exists)

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        new = [override for override in dict.fromkeys(overrides) if override not in self._parsed]
        self._parsed |= zip(new, parse(new, self._parser), strict=True)
        return [self._parsed[override] for override in overrides]

    def compose(self, overrides: Sequence[str]) -> Composed:
        parsed = self.parse([*self._fixed, *overrides])
        for override in parsed:
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line} lists several values: add -m to train each, or write "
                    f"{override.get_key_element()}=[...] for a list"
                )
        structural = [self._is_structural(override) for override in parsed]
        files = self._compose_files(tuple(str(o.input_line) for o, s in zip(parsed, structural, strict=True) if s))
        values = [o for o, s in zip(parsed, structural, strict=True) if not s]
        plain = None if files.plain is None else with_plain_values(files.plain, values)
        return Composed(plain or with_values(files.config, values), files.choices, given_settings(values))

    def _compose_files(self, overrides: tuple[str, ...]) -> _Files:
        if overrides not in self._files:
            config, choices = compose_groups(self._loader, overrides)
            plain: Any = OmegaConf.to_container(config)
            self._files[overrides] = _Files(config, plain if _is_plain(plain) else None, choices)
        return self._files[overrides]

    def run_config(self, overrides: Sequence[str]) -> RunConfig:
        return resolve_run(*read(self.compose(overrides).plain))[0]

    def _is_structural(self, override: Override) -> bool:
        """Whether Hydra needs the override to find its files; all others only set values."""
        if override.key_or_group.startswith("hydra."):
            return True
        return self._group_exists(override.key_or_group) and not isinstance(override.value(), dict)


def with_plain_values(plain: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any] | None:
    """`plain` with the values of `overrides`, in a tenth of the time that OmegaConf takes.

    None where it takes OmegaConf: to add or remove a key, merge a mapping, or find out what refers to something else.
    """
    changed = dict(plain)
    for override in overrides:
        value = None if override.is_delete() else override.value()
        if override.type is not OverrideType.CHANGE or isinstance(value, dict) or not _is_plain(value):
            return None
        *sections, name = override.key_or_group.split(".")
        section = changed
        for part in sections:
            if not isinstance(section.get(part), dict):
                return None
            section[part] = dict(section[part])
            section = section[part]
        if name not in section or isinstance(section[name], dict):
            return None
        section[name] = value
    return changed


def _is_plain(value: Any) -> bool:
    """Whether it stands for itself: neither an interpolation nor a value that is to be given yet."""
    if isinstance(value, str):
        return "${" not in value and value != "???"
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, bool | int | float | None)


def with_values(config: DictConfig, overrides: list[Override]) -> dict[str, Any]:
    """`config` with the values of `overrides`, as Hydra sets them."""
    changed = copy.deepcopy(config)
    with hydra_errors_as_sentences():
        ConfigLoaderImpl._apply_overrides_to_config(overrides, changed)
    return as_plain(changed)


@contextlib.contextmanager
def open_composer(fixed: Sequence[str] = ()) -> Iterator[Composer]:
    """A Composer on conf/ for programs that are not started by Hydra."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(project_root() / "conf"), version_base=HYDRA_VERSION_BASE):
        yield Composer(GlobalHydra.instance().config_loader(), fixed)
