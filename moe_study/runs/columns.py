"""What the columns of a stored table hold: a file that opens can still lack one, or hold something else in it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which a command without a frame does not need


class Holds(StrEnum):
    """What every row has in a column; no two rows have the same places and text."""

    PLACE = "whole numbers"  # of a layer, an expert, a draw: where in the table a row belongs
    AMOUNT = "finite numbers"
    NUMBER = "numbers"  # finite ones, or none where there is nothing to tell
    TEXT = "text"
    LIST = "lists"


Columns = Mapping[str, Holds]


def fault_of(table: "pd.DataFrame", columns: Columns) -> str | None:
    """What is wrong with the first column that is missing or holds something else; None where all is as it should be.

    Columns beyond `columns` are nobody's concern; a table without rows has no types.
    """
    for name, holds in columns.items():
        if name not in table:
            return f"it has no column {name}"
        if len(table) and not _does_hold(table[name], holds):
            return f"its column {name} does not hold {holds}"
    places = [name for name, holds in columns.items() if holds in (Holds.PLACE, Holds.TEXT)]
    if places and table.duplicated(places).any():
        return f"several rows have the same {', '.join(places)}"
    return None


def _does_hold(column: "pd.Series[Any]", holds: Holds) -> bool:
    import numpy as np
    import pandas as pd

    if holds is Holds.TEXT:
        return bool(pd.api.types.infer_dtype(column, skipna=False) == "string" and column.notna().all())
    if holds is Holds.LIST:
        return all(isinstance(value, list | tuple | np.ndarray) for value in column)
    if not pd.api.types.is_numeric_dtype(column):
        return False
    values = column.to_numpy(dtype=float, na_value=np.nan)
    if holds is Holds.NUMBER:
        return not np.isinf(values).any()
    whole = holds is not Holds.PLACE or values == np.floor(values)
    return bool((np.isfinite(values) & whole).all())
