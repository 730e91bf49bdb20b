"""wandb as a mirror of what the run's folder already holds.

Off unless `log.wandb` says offline or online, imported only then. Nothing that wandb does can stop a run or
change it: every failure is one warning, after which the mirror is silent.
"""

import glob
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moe_study.design.choices import CHOICES
from moe_study.design.config import RunConfig
from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError

MODES = CHOICES["log.wandb"]


class Mirror:
    """Sends records to wandb.

    A training is known there by the run's key, one that began anew by the key and its attempt, so that no two curves
    mix. A resumed run continues its curve; offline, where every process writes a folder of its own, the folder gets
    the whole curve, `so_far` first, and takes the place of those before it: what is synced later is one piece.
    """

    def __init__(self, config: RunConfig, folder: Path, attempt: int = 1, so_far: Iterable[dict[str, Any]] = ()):
        self._run: Any = None
        mode = config.log.wandb
        self._is_offline = mode == "offline"
        if mode not in MODES:
            raise ConfigError(f"log.wandb={mode} is unknown; choose off, offline or online")
        if mode == "off":
            return
        name = config.key if attempt == 1 else f"{config.key}-{attempt}"
        try:
            import wandb

            self._run = wandb.init(
                project=config.log.wandb_project,
                id=name,
                name=name,
                group=config.log.sweep,
                config={name: part for name, part in to_plain(config).items() if name != "log"},
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                resume="allow",
                settings=wandb.Settings(console="off", silent=True, init_timeout=60),
            )
        except (Exception, SystemExit) as error:
            self._fail("start", error)
        if self._is_offline:
            for record in so_far:
                self.log(record)

    def log(self, record: dict[str, Any]) -> None:
        """Mirror one line of metrics.jsonl. After a resume wandb itself drops steps that it already has."""
        if self._run is None:
            return
        try:
            self._run.log(flatten(record), step=record["step"])
        except Exception as error:
            self._fail("log", error)

    def finish(self, state: str, summary: dict[str, Any] | None = None) -> None:
        """Close the wandb run; anything but "done" is shown there as a failure."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.summary.update({"state": state, **(summary or {})})
            run.finish(exit_code=0 if state == "done" else 1)
            if self._is_offline:
                _drop_others(Path(run.dir).parent, run.id)
        except Exception as error:
            self._fail("finish", error)

    def _fail(self, what: str, error: BaseException) -> None:
        self._run = None
        warnings.warn(f"wandb could not {what} and is left out from here on: {error}", stacklevel=3)


def _drop_others(own: Path, name: str) -> None:
    """Delete the offline folders of earlier attempts at run `name`, all of which stands in `own`, too."""
    for folder in own.parent.glob(f"offline-run-*-{glob.escape(name)}"):
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)


def flatten(record: dict[str, Any]) -> dict[str, Any]:
    """One record as wandb's flat names, such as train/loss, train/aux/switch and routing/3/share/0."""
    prefix = record["kind"] + (f"/{record['layer']}" if "layer" in record else "")
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("kind", "step", "layer"):
            continue
        if isinstance(value, dict):
            flat |= {f"{prefix}/{name}/{inner}": item for inner, item in value.items()}
        elif isinstance(value, list):
            flat |= {f"{prefix}/{name}/{index}": item for index, item in enumerate(value)}
        else:
            flat[f"{prefix}/{name}"] = value
    return flat
