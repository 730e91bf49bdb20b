"""The code of a submission as it was sent: jobs import a copy, so that edits while they wait change none of their runs.

RUNS_DIR/.submissions/.code/HASH/moe_study holds one copy for all submissions of the same code, and goes with the last.
"""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from moe_study.files import clear_os_errors, make_folder, write_json_atomic
from moe_study.runs.job_records import Submission
from moe_study.runs.provenance import COPIED_FROM, PACKAGE, code_of

LEFT_OUT = shutil.ignore_patterns("__pycache__", "shipped")


def take_snapshot(runs_dir: str | Path) -> Path:
    """A folder that holds a copy of the package, as its files are now; what commit they come from stands beside it."""
    root = Path(runs_dir) / ".submissions" / ".code"
    make_folder(root)
    with clear_os_errors(root):
        copy = Path(tempfile.mkdtemp(prefix=".part-", dir=root))
        shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=LEFT_OUT)
    code = {**code_of(PACKAGE), "sources": code_of(copy / PACKAGE.name)["sources"]}
    write_json_atomic(copy / COPIED_FROM, code)
    name = f"{code['sources']}"[:16]
    if (root / name / COPIED_FROM).exists():
        shutil.rmtree(copy)
    else:
        copy.chmod(0o755)
        copy.rename(root / name)
    return root / name


def drop_unused(runs_dir: str | Path, submissions: Iterable[Submission]) -> None:
    """Remove the copies that no job will import any more."""
    used = {submission.code for submission in submissions if not submission.over}
    for copy in (Path(runs_dir) / ".submissions" / ".code").glob("*"):
        if copy.name not in used:
            shutil.rmtree(copy, ignore_errors=True)
