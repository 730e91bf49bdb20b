"""What was drawn and written of a study, as an artifact of Weights & Biases.

Offline, everything that `wandb sync` later needs lies beside what was written, and is named from there, so that the
folder may be moved first: wandb sync is to be typed in it (WANDB_DATA_DIR, if set, keeps copies of the files elsewhere,
which stay where they are). wandb is imported only here and only when asked for.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_study.errors import StudyError, reason_of
from moe_study.files import make_folder

MODES = ("offline", "online")
COPIES = "WANDB_DATA_DIR"  # where wandb keeps copies of files until they are sent; a folder of the user, if not told


def publish(
    files: Sequence[Path], base: Path, *, name: str, kind: str, mode: str, project: str, facts: Mapping[str, Any]
) -> str:
    """Send `files`, which lie below `base`, as the artifact NAME-KIND (a new version where they differ); its name.

    The run that holds it is known as report-NAME and joins the runs of its sweep (group NAME). StudyError where wandb
    cannot do it; the files stay where they are.
    """
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or "runs"
    try:
        with _copies_in(base / "wandb"):
            import wandb

            run = wandb.init(
                project=project,
                id=f"report-{slug}",
                name=f"report of {name}",
                group=name,
                job_type="report",
                dir=str(base),
                mode=mode,  # type: ignore[arg-type]
                resume="allow",
                settings=wandb.Settings(console="off", silent=True, init_timeout=60),
            )
            artifact = wandb.Artifact(f"{slug}-{kind}", type=kind, metadata=dict(facts))
            for file in files:
                entry = artifact.add_file(str(file), name=file.relative_to(base).as_posix())
                if mode == "offline":
                    entry.local_path = _from(base, entry.local_path)
            run.log_artifact(artifact)
            run.finish()
    except (Exception, SystemExit) as error:  # wandb ends the process where it has no key
        raise StudyError(
            f"wandb could not take {slug}-{kind}: {reason_of(error)}; the files are in {base}. --wandb offline keeps"
            " everything here, and wandb sync sends it later"
        ) from error
    return f"{slug}-{kind}"


def _from(base: Path, path: str | None) -> str | None:
    """A path below `base` as seen from there; any other as it is."""
    root = base.resolve()
    return Path(path).relative_to(root).as_posix() if path and Path(path).is_relative_to(root) else path


@contextlib.contextmanager
def _copies_in(folder: Path) -> Iterator[None]:
    """wandb's copies of files go to `folder`, unless the user has said where."""
    if COPIES in os.environ:
        yield
        return
    make_folder(folder)
    os.environ[COPIES] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[COPIES]
