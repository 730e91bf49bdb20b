"""A run's routing.parquet: how often each expert was used, by domain, over the validation set after training."""

from pathlib import Path
from typing import TYPE_CHECKING

from moe_study.errors import DataError
from moe_study.files import atomic_file
from moe_study.runs.columns import Holds, fault_of

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which a command without a frame does not need

# One row per layer, expert, language and topic: pairs of tokens and experts, the sum of their gate weights, and the
# tokens of the domain.
COLUMNS = {
    **dict.fromkeys(("layer", "expert"), Holds.PLACE),
    **dict.fromkeys(("language", "topic"), Holds.TEXT),
    **dict.fromkeys(("count", "weight", "tokens"), Holds.AMOUNT),
}


def write(path: Path, counts: "pd.DataFrame") -> None:
    """Write COLUMNS, whole or not at all."""
    with atomic_file(path) as handle:
        counts[list(COLUMNS)].to_parquet(handle, index=False)


def read(path: Path, advice: str) -> "pd.DataFrame | None":
    """COLUMNS, or None where there is no file; without rows for a run without a router.

    DataError where the file is damaged, with the `advice` on what to do then.
    """
    import pandas as pd

    if not path.exists():
        return None
    try:
        counts = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise DataError(f"{path} is damaged: it is not a parquet file; {advice}") from error
    if (fault := fault_of(counts, COLUMNS)) is not None:
        raise DataError(f"{path} is damaged: {fault}; {advice}")
    return counts[list(COLUMNS)]
