"""What conf/ and the command line are made of: where conf/ lies, every field with its default, a command's settings."""

import functools
from pathlib import Path
from typing import Any

import yaml

from moe_study.design.config import RunConfig
from moe_study.design.identity import is_outside
from moe_study.design.matching import Match
from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError

CONFIG_NAME = "config"
SETTINGS = ("sweep", "scale", "skip_invalid", "retry_failed", "job", "cluster")  # of the command, not of a run
PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "shipped"  # copies of conf/ and sweeps/ in an installed package; setup.py makes them
_OURS = Path("conf", "hydra", "sweeper", "plan.yaml")  # tells our conf/ from that of another program with Hydra


def project_root() -> Path:
    """The folder that holds conf/ and sweeps/: the clone that this package runs from, or the current folder if it is
    a clone, else what was installed with the package.
    """
    for root in (PACKAGE.parent, Path.cwd(), SHIPPED):
        if (root / _OURS).exists():
            return root
    raise ConfigError("moe_study was installed without its conf/ and sweeps/; install it again, or run it from a clone")


@functools.cache
def groups() -> list[str]:
    """The groups of conf/ but those of Hydra itself."""
    folders = (entry for entry in (project_root() / "conf").iterdir() if entry.is_dir())
    return sorted(folder.name for folder in folders if folder.name != "hydra")


def choices_of(group: str) -> list[str]:
    """The files of a group of conf/."""
    return sorted(path.stem for path in (project_root() / "conf" / group).glob("*.yaml"))


def defaults() -> dict[str, Any]:
    """Every field that a configuration has, with its default."""
    return {**to_plain(RunConfig()), "match": to_plain(Match())}


def command_settings() -> dict[str, Any]:
    """The settings of a command, with their defaults."""
    content = yaml.safe_load((project_root() / "conf" / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8"))
    return {name: content[name] for name in SETTINGS}


def is_setting(key: str) -> bool:
    """Whether `key` steers the command and is not part of a run's configuration."""
    return key.partition(".")[0] in SETTINGS


def is_outside_the_key(key: str) -> bool:
    """Whether `key` belongs to a run without making it another run: what is logged, and where data lies."""
    return key.partition(".")[0] in ("log", "hydra") or is_outside(key)
