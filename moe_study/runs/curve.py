"""A run's metrics.jsonl: one record a line, appended while it trains, so that all but the last line is always whole."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe_study.design.plain import to_plain
from moe_study.errors import StudyError, reason_of
from moe_study.files import clear_os_errors, write_text_atomic


def read(path: Path) -> list[dict[str, Any]]:
    """All records, each with its `kind` and `step`; none where there is no file.

    A last line that a killed process left unfinished is ignored; any other damage is a StudyError.
    """
    return [record for _, record in _lines(path)]


def append(path: Path, *records: Mapping[str, Any]) -> None:
    """Add a line for each record, all in one write. Numbers that are not finite become null."""
    lines = "".join(json.dumps(finite(to_plain(record)), allow_nan=False) + "\n" for record in records)
    with clear_os_errors(path), open(path, "a", encoding="utf-8") as handle:
        handle.write(lines)


def drop_after(path: Path, step: int) -> None:
    """Remove every record of a later step, and an unfinished line."""
    if path.exists():
        kept = [line + "\n" for line, record in _lines(path) if record["step"] <= step]
        write_text_atomic(path, "".join(kept))


def finite(value: Any) -> Any:
    """Plain values with null in place of every number that JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read: {reason_of(error)}") from error
    for number, line in enumerate(lines[:-1], start=1):  # the rest after the last newline is unfinished
        try:
            record = json.loads(line)
            record["kind"], record["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path} is damaged at line {number}") from error
        yield line, record
