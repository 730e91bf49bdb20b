"""The files of a choice of groups as one configuration, by Hydra's own steps."""

from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import GroupDefault
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from moe_study.sweeps.conf import CONFIG_NAME
from moe_study.sweeps.hydra_errors import hydra_errors_as_sentences

Choices = dict[str, str | None]


def compose_groups(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> tuple[DictConfig, Choices]:
    """What `overrides`, choices of groups, give, without Hydra's own section, and which file was chosen of each group.

    Half of the files and of the time are that section's (logging, launchers, help texts), so it is only composed where
    an override is about it. ConfigError for a choice that is not there.
    """
    about_hydra = any(override.lstrip("+~").startswith(("hydra.", "hydra/")) for override in overrides)
    with hydra_errors_as_sentences():
        config, choices = (_with_hydra if about_hydra else _alone)(loader, list(overrides))
    with open_dict(config):
        config.pop("hydra", None)
    return config, choices


def _with_hydra(loader: ConfigLoaderImpl, overrides: list[str]) -> tuple[DictConfig, Choices]:
    config = loader.load_configuration(CONFIG_NAME, overrides, run_mode=RunMode.RUN)
    return config, {str(group): choice for group, choice in config.hydra.runtime.choices.items()}


def _alone(loader: ConfigLoaderImpl, overrides: list[str]) -> tuple[DictConfig, Choices]:
    """As load_configuration of `loader` does it, from a primary configuration that chooses nothing of Hydra's."""
    parsed, files = loader._parse_overrides_and_create_caching_repo(CONFIG_NAME, overrides)
    primary = files.load_config(CONFIG_NAME)  # this composition's own, and what it is given from here on
    assert primary is not None and primary.defaults_list is not None
    primary.defaults_list = [
        default
        for default in primary.defaults_list
        if not (isinstance(default, GroupDefault) and str(default.group).startswith("hydra/"))
    ]
    chosen = create_defaults_list(files, CONFIG_NAME, parsed, prepend_hydra=False, skip_missing=False)
    config = loader._compose_config_from_defaults_list(chosen.defaults, files)
    OmegaConf.set_struct(config, True)
    loader._apply_overrides_to_config(chosen.config_overrides, config)
    return config, dict(chosen.overrides.known_choices)
