"""How runs share a machine. The defaults stand in conf/config.yaml, section `job`, and nowhere else."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError

FOR_LAUNCHERS = ("runs",)  # what else `job` holds, for launchers that submit jobs


@dataclass(frozen=True)
class PoolSettings:
    """What `job.*` says (for this machine also hydra.launcher.*), each explained in conf/config.yaml."""

    workers: int | str
    threads_per_run: int | str
    runs_per_gpu: int
    mps: str
    grace: float  # seconds

    @classmethod
    def of(cls, job: Mapping[str, Any], where: str = "job.") -> "PoolSettings":
        """The fields among those of `job`; ConfigError if one is missing, unknown or of the wrong kind."""
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in job]
        if missing:
            raise ConfigError(f"job.{missing[0]} has no value; give it one in conf/config.yaml or on the command line")
        settings = {name: value for name, value in job.items() if name not in FOR_LAUNCHERS}
        read: PoolSettings = from_plain(cls, settings, where)
        if not read.grace >= 0:
            raise ConfigError(f"{where}grace={read.grace} must not be negative; it is in seconds")
        return read
