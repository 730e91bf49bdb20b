"""A run's metrics.jsonl: one record a line, appended while it trains, so that all but the last line is always whole."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.design.plain import to_plain
from moe_study.errors import StudyError, reason_of
from moe_study.files import clear_os_errors, write_text_atomic

if TYPE_CHECKING:
    import pandas as pd  # this and pyarrow take half a second, which training has no use for
    import pyarrow as pa

WHOLE_NUMBERS = ("step", "tokens", "layer")
LISTS = ("share", "by_expert")  # of numbers; all else but the kind is a number


def read(path: Path) -> list[dict[str, Any]]:
    """All records, each with its `kind` and `step`; none where there is no file.

    A last line that a killed process left unfinished is ignored; any other damage is a StudyError.
    """
    return [record for _, record in _lines(path)]


def read_table(path: Path, kinds: Collection[str], columns: Sequence[str]) -> "pd.DataFrame":
    """The records of these kinds, a row each, with nan for what is null or missing; errors as of `read`.

    Arrow reads the lines, six times faster than Python does; what is not plainly a file of such records, `read` does.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _arrow_table(path, {"kind", "step", *columns})
    if table is None:
        rows = [_with_numbers(path, record, columns) for record in read(path) if record["kind"] in kinds]
        return pd.DataFrame(rows, columns=list(columns))
    chosen = pc.is_in(table["kind"], value_set=pa.array(kinds, pa.string()))
    found: pd.DataFrame = table.filter(chosen).select(list(columns)).to_pandas()
    return found


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


def _with_numbers(path: Path, record: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The record; StudyError where one of `columns` holds what is no number."""
    for name in columns:
        value = record.get(name)
        is_right = _are_numbers(value) if name in LISTS else isinstance(value, int | float | None)
        if name != "kind" and not is_right:
            raise StudyError(f"{path} is damaged: a record's {name} is {value!r:.40}")
    return record


def _are_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, of which some may be null, or nothing."""
    return value is None or (isinstance(value, list) and all(isinstance(one, int | float | None) for one in value))


def _arrow_table(path: Path, columns: Collection[str]) -> "pa.Table | None":
    """All records, of each only `columns`; None where one of them is not a record, or has a value of another type."""
    import pyarrow as pa
    import pyarrow.json

    try:
        content = path.read_bytes()
        content.decode("utf-8")
        whole = content[: content.rfind(b"\n") + 1]
        table = pyarrow.json.read_json(
            pa.BufferReader(whole),
            read_options=pyarrow.json.ReadOptions(use_threads=False),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema([(name, _arrow_type(name)) for name in columns]),
                unexpected_field_behavior="ignore",
            ),
        )
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return None
    one_a_line = table.num_rows == whole.count(b"\n") and b"\r" not in content  # which Python's text has as an end, too
    return table if one_a_line and not table["kind"].null_count and not table["step"].null_count else None


def _arrow_type(name: str) -> "pa.DataType":
    import pyarrow as pa

    if name == "kind":
        return pa.string()
    if name in LISTS:
        return pa.list_(pa.float64())
    return pa.int64() if name in WHOLE_NUMBERS else pa.float64()
