"""What hydra.launcher.* says for hydra/launcher=slurm. The defaults stand in conf/hydra/launcher/slurm.yaml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError

OURS = ("--array", "--job-name", "-J", "-a", "--output", "-o", "--open-mode", "--signal", "--requeue", "--no-requeue")


@dataclass(frozen=True)
class SlurmSettings:
    """How jobs are sent; each is explained in conf/hydra/launcher/slurm.yaml."""

    wait: bool
    poll: float  # seconds
    patience: float  # minutes
    limit: int | None
    attempts: int
    warning: int  # seconds
    minutes: int | None
    ranks: int
    gpus: int | str
    cpus: int
    memory: str | None
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    options: tuple[str, ...]
    setup: tuple[str, ...]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "SlurmSettings":
        """ConfigError for a value that no cluster could take."""
        settings: SlurmSettings = from_plain(cls, dict(plain), "hydra.launcher.")
        for name in ("limit", "attempts", "minutes", "ranks", "cpus"):
            value = getattr(settings, name)
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value} must be at least 1")
        for name in ("poll", "patience", "warning"):
            if getattr(settings, name) <= 0:
                raise ConfigError(f"hydra.launcher.{name}={getattr(settings, name)} must be more than 0")
        if settings.minutes is not None and settings.warning >= 60 * settings.minutes:
            raise ConfigError(
                f"hydra.launcher.warning={settings.warning} seconds before the end of a job of"
                f" hydra.launcher.minutes={settings.minutes} would come at once; give it less (job.grace), or more time"
            )
        if settings.gpus != "auto" and (isinstance(settings.gpus, str) or settings.gpus < 0):
            raise ConfigError(f"hydra.launcher.gpus={settings.gpus} must be auto, 0 or more")
        for option in settings.options:
            if not option.startswith("-"):
                raise ConfigError(f"hydra.launcher.options: {option} is not an option of sbatch; write --NAME=VALUE")
            if option.partition("=")[0] in OURS:
                raise ConfigError(f"hydra.launcher.options: {option} is set by the launcher itself; leave it out")
        return settings

    def sbatch_options(self, devices: Iterable[str]) -> list[str]:
        """Options of sbatch for one job; `devices` are the run.device values of the runs."""
        gpus = self.gpus if self.gpus != "auto" else self.ranks * int(set(devices) != {"cpu"})
        given = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.minutes,
            "mem": self.memory,
            "gres": f"gpu:{gpus}" if gpus else None,
            "cpus-per-task": self.ranks * self.cpus,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return ["--nodes=1", "--ntasks=1", *options, f"--signal=B:USR2@{self.warning}", "--requeue", *self.options]
