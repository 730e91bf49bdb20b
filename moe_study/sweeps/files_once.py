"""Hydra's reader of configuration files, made to read each of them once."""

import copy
import pickle
from typing import Any

from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource


class FilesOnce(IConfigRepository):
    """Reads through `repository`, and keeps what was read for the compositions after the first.

    Hydra copies its repository for each composition, changes what the copy gives it, and reads every file again, which
    takes it two fifths of its time. A copy of this one shares what was read, and gives each reader a copy of that.
    """

    def __init__(self, repository: IConfigRepository) -> None:
        self._repository = repository
        self._read: dict[str, tuple[ConfigResult, bytes] | None] = {}  # with the content, whose copies are cheap so
        self._there: dict[str, bool] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "FilesOnce":
        return copy.copy(self)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Other folders from here on, for this copy alone."""
        self._repository = copy.deepcopy(self._repository)
        self._repository.initialize_sources(config_search_path)
        self._read, self._there = {}, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._read:
            found = self._repository.load_config(config_path=config_path)
            self._read[config_path] = None if found is None else (found, pickle.dumps(found.config))
        if (kept := self._read[config_path]) is None:
            return None
        own = copy.copy(kept[0])
        own.config = pickle.loads(kept[1])
        return own

    def config_exists(self, config_path: str) -> bool:
        if config_path not in self._there:
            self._there[config_path] = self._repository.config_exists(config_path=config_path)
        return self._there[config_path]

    def get_schema_source(self) -> ConfigSource:
        return self._repository.get_schema_source()

    def group_exists(self, config_path: str) -> bool:
        return self._repository.group_exists(config_path=config_path)

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        return self._repository.get_group_options(group_name, results_filter)

    def get_sources(self) -> list[ConfigSource]:
        return self._repository.get_sources()
