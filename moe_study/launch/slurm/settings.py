"""What hydra.launcher.* says for hydra/launcher=slurm. The defaults stand in conf/hydra/launcher/slurm.yaml."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError
from moe_study.launch.slurm.profile import ClusterProfile

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(ClusterProfile):
    """How jobs are sent; each is explained in conf/hydra/launcher/slurm.yaml."""

    wait: bool
    poll: float  # seconds
    patience: float  # minutes
    limit: int | None
    attempts: int
    warning: int  # seconds
    nodes: int = 1
    ranks: int | str  # on each node
    gpus_per_node: int | str = AUTO
    cpus: int  # of each rank
    memory: str | None  # of each node

    @classmethod
    def of(
        cls, plain: Mapping[str, Any], profile: Mapping[str, Any] | None = None, runs_per_job: int = 1
    ) -> "SlurmSettings":
        """What is null in `plain` is as the cluster's profile says, and what is left to be chosen of `ranks` is chosen.

        ConfigError for a value that no cluster could take.
        """
        of_profile = {field.name for field in dataclasses.fields(ClusterProfile)}
        said = {name: value for name, value in plain.items() if value is not None or name not in of_profile}
        settings: SlurmSettings = from_plain(cls, {**(profile or {}), **said}, "hydra.launcher.")
        settings.check("hydra.launcher.")
        for name in ("limit", "attempts", "nodes", "ranks", "cpus"):
            value = getattr(settings, name)
            if isinstance(value, str) and value != AUTO:
                raise ConfigError(f"hydra.launcher.{name}={value} must be auto, or at least 1")
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value} must be at least 1")
        for name in ("poll", "patience", "warning"):
            if getattr(settings, name) <= 0:
                raise ConfigError(f"hydra.launcher.{name}={getattr(settings, name)} must be more than 0")
        if settings.minutes is not None and settings.warning >= 60 * settings.minutes:
            raise ConfigError(
                f"hydra.launcher.warning={settings.warning} seconds before the end of a job of"
                f" hydra.launcher.minutes={settings.minutes} would come at once; give it less (job.grace), or more time"
            )
        gpus = settings.gpus_per_node
        if gpus != AUTO and (isinstance(gpus, str) or gpus < 0):
            raise ConfigError(f"hydra.launcher.gpus_per_node={gpus} must be auto, 0 or more")
        return settings._with_ranks(runs_per_job)

    @classmethod
    def recorded(cls, plain: Mapping[str, Any]) -> "SlurmSettings":
        """Those of a record of jobs, which an older version may have written."""
        return cls.of({"gpus_per_node" if name == "gpus" else name: value for name, value in plain.items()})

    @property
    def processes(self) -> int:
        """That train one run together."""
        assert isinstance(self.ranks, int)
        return self.nodes * self.ranks

    def _with_ranks(self, runs_per_job: int) -> "SlurmSettings":
        """A GPU of its own for each rank, unless several runs share the job."""
        gpus = self.gpus_per_node if isinstance(self.gpus_per_node, int) else 0
        ranks = self.ranks if self.ranks != AUTO else max(1, gpus) if runs_per_job == 1 else 1
        settings = dataclasses.replace(self, ranks=ranks)
        if settings.processes > 1 and runs_per_job > 1:
            which = f"nodes={self.nodes}" if self.nodes > 1 else f"ranks={ranks}"
            raise ConfigError(
                f"job.runs={runs_per_job} puts several runs into a job, and with hydra.launcher.{which}"
                f" {settings.processes} processes train one together: leave one of the two out"
            )
        return settings

    def sbatch_options(self, devices: Iterable[str]) -> list[str]:
        """Options of sbatch for one job; `devices` are the run.device values of the runs."""
        assert isinstance(self.ranks, int)
        auto = self.ranks * int(set(devices) != {"cpu"})
        gpus = auto if self.gpus_per_node == AUTO else self.gpus_per_node
        given = {
            "nodes": self.nodes,
            "ntasks-per-node": self.ranks,
            "cpus-per-task": self.cpus,
            "gres": f"gpu:{gpus}" if gpus else None,
            "mem": self.memory,
            "time": self.minutes,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return [*options, f"--signal=B:USR2@{self.warning}", "--requeue", *self.options]
