"""What conf/ and the command line are made of: where conf/ lies, every field with its default, a command's settings."""

from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.design.identity import is_outside
from moe_study.design.matching import Match
from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError

CONFIG_NAME = "config"
SETTINGS = ("sweep", "skip_invalid", "retry_failed", "job")  # of the command, not of a run
_HERE = Path(__file__).resolve().parents[2]


def project_root() -> Path:
    """The folder that holds conf/ and sweeps/: the clone that this package runs from, else the current folder."""
    for root in (_HERE, Path.cwd()):
        if (root / "conf" / f"{CONFIG_NAME}.yaml").exists():
            return root
    raise ConfigError(f"there is no conf/{CONFIG_NAME}.yaml here or beside the package; run from a clone of moe_study")


def defaults() -> dict[str, Any]:
    """Every field that a configuration has, with its default."""
    return {**to_plain(RunConfig()), "match": to_plain(Match())}


def is_setting(key: str) -> bool:
    """Whether `key` steers the command and is no part of a run's configuration."""
    return key.partition(".")[0] in SETTINGS


def is_outside_the_key(key: str) -> bool:
    """Whether `key` belongs to a run without making it another run: what is logged, and where data lies."""
    return key.partition(".")[0] in ("log", "hydra") or is_outside(key)
