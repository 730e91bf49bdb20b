"""Files of a prepared corpus are what its manifest says, to the last byte.

They are hashed when a corpus is opened. What each file's system says of it then (size, both times, inode) is kept
beside them, and as long as it says the same the file is not hashed again. The kernel sets the time of the last
change (ctime) itself: a copy that keeps size and times (cp -p, rsync -t, touch -r) still moves it. Where nothing
can be written, files are hashed at every opening.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moe_study.data.download import sha256_of
from moe_study.errors import DataError, StudyError
from moe_study.files import write_json_atomic

VERIFIED = ".verified.json"  # {name: [bytes, mtime, ctime, inode, sha256]}
# Seconds: times are coarse (1 s on some systems), so a file that was changed just before it was hashed could be
# changed again without a trace. Younger files are hashed again at the next opening.
SETTLED = 2.0


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], advice: str, *, again: bool = False) -> None:
    """DataError, with `advice`, names the first of `files` (manifest entries by name) that is not what it was.

    `again` hashes even what was verified before.
    """
    known = {} if again else _read(folder)
    found: dict[str, list[Any]] = {}
    for name, entry in files.items():
        state = _check(folder / name, entry, known.get(name), advice)
        if state is not None:
            found[name] = state
    if found != known:
        with contextlib.suppress(StudyError, OSError):  # a folder that cannot be written
            write_json_atomic(folder / VERIFIED, found, indent=None)


def _check(path: Path, entry: Mapping[str, Any], known: list[Any] | None, advice: str) -> list[Any] | None:
    """What to remember of a file that is as it should be; None if it is too young for that."""
    began = time.time()
    state = _state(path, advice)
    if state[0] != entry["bytes"]:
        raise DataError(f"{path} is damaged ({state[0]} bytes, expected {entry['bytes']}); {advice}")
    if known == [*state, entry["sha256"]]:
        return known
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {advice}") from error
    if found != entry["sha256"]:
        raise DataError(f"{path} is damaged (its content is not what was prepared, by its sha256); {advice}")
    if _state(path, advice) != state:
        raise DataError(f"{path} was written to while it was read; {advice}")
    changed = state[2] / 1e9
    return [*state, entry["sha256"]] if began - changed > SETTLED else None


def _state(path: Path, advice: str) -> list[int]:
    if not path.is_file():
        raise DataError(f"{path} is missing; {advice}")
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(folder: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
