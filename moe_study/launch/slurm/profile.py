"""What jobs need on one cluster, whatever they train: the section `cluster`, which a file in conf/cluster/ fills in."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError

OURS = {  # options of sbatch, and how to say the same
    **dict.fromkeys(("--array", "-a", "--job-name", "-J", "--output", "-o", "--open-mode"), "leave it out"),
    **dict.fromkeys(("--signal", "--requeue", "--no-requeue"), "leave it out"),
    **dict.fromkeys(("--nodes", "-N"), "use hydra.launcher.nodes"),
    **dict.fromkeys(("--ntasks", "-n", "--ntasks-per-node"), "use hydra.launcher.ranks"),
}
TEXTS = ("partition", "account", "qos", "constraint", "container", "python")


@dataclass(frozen=True, kw_only=True)
class ClusterProfile:
    """Each field is explained in conf/config.yaml, section `cluster`."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int | None = None
    options: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    container: str | None = None
    python: str | None = None

    def check(self, where: str) -> None:
        """ConfigError, which names the field below `where`, for a value that no cluster could take."""
        for name in TEXTS:
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise ConfigError(f"{where}{name} is empty; write null for none")
        if self.minutes is not None and self.minutes < 1:
            raise ConfigError(f"{where}minutes={self.minutes} must be at least 1")
        for option in self.options:
            if not option.startswith("-"):
                raise ConfigError(f"{where}options: {option} is not an option of sbatch; write --NAME=VALUE")
            if (advice := OURS.get(option.partition("=")[0])) is not None:
                raise ConfigError(f"{where}options: {option} is set by the launcher itself; {advice}")
        for module in self.modules:
            if len(module.split()) != 1:
                raise ConfigError(f"{where}modules: {module!r} must be the name of one module, such as cuda/12.4")
        try:
            shlex.split(self.container or "")
        except ValueError as error:
            raise ConfigError(f"{where}container cannot be split into words as a shell would: {error}") from error

    @property
    def module_lines(self) -> list[str]:
        """Shell that loads the modules, or ends the job."""
        if not self.modules:
            return []
        names = " ".join(map(shlex.quote, self.modules))
        return ["command -v module >/dev/null || . /etc/profile", f"module load {names} || exit 1"]


def check_profile(plain: Mapping[str, Any]) -> None:
    """ConfigError for a section `cluster` that makes no sense."""
    profile: ClusterProfile = from_plain(ClusterProfile, plain, "cluster.")
    profile.check("cluster.")
