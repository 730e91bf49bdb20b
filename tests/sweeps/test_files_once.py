"""Files of conf/ are read once for all compositions, each of which is what Hydra makes by itself."""

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from moe_study.sweeps.compose import HYDRA_VERSION_BASE, open_composer
from moe_study.sweeps.conf import CONFIG_NAME, project_root

CHOICES = ([], ["routing=soft_moe", "model=micro"], ["routing=dense"], ["recipe=pico"], ["routing=soft_moe"], [])


def by_hydra(overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(project_root() / "conf"), version_base=HYDRA_VERSION_BASE):
        return OmegaConf.to_container(hydra_compose(CONFIG_NAME, overrides), resolve=True)


def test_each_file_is_read_once_and_no_composition_changes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [by_hydra(overrides) for overrides in CHOICES]
    read, files = [], SourcesRegistry.instance().resolve("file")
    load = files.load_config
    noting = lambda own, config_path: read.append(config_path) or load(own, config_path)  # noqa: E731
    monkeypatch.setattr(files, "load_config", noting)
    with open_composer() as composer:
        made = [composer.compose([*overrides, f"run.seed={place}"]).plain for place, overrides in enumerate(CHOICES)]
    for place, (own, by_itself) in enumerate(zip(made, expected, strict=True)):
        assert own == by_itself | {"run": by_itself["run"] | {"seed": place}}
    assert len(read) == len(set(read)) > 10


def test_folders_that_one_composition_adds_are_not_there_for_the_next(tmp_path) -> None:
    (tmp_path / "routing").mkdir()
    (tmp_path / "routing" / "mine.yaml").write_text("k: 3\n")
    with open_composer() as composer:
        there = [f"hydra.searchpath=[file://{tmp_path}]", "routing=mine"]
        assert composer.compose(there).value("routing.k") == 3
        with pytest.raises(Exception, match="mine"):
            composer.compose(["routing=mine"])
