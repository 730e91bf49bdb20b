"""The folder of a run as the processes see it that train it together with the one that has claimed it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moe_study.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


class FollowedFolder(RunFolder):
    """Reads everything and writes nothing: rank 0 records."""

    def begin_anew(self) -> int:
        return self.status().began

    def progress(self, step: int, *, force: bool = False) -> None: ...

    def finish(self, result: Mapping[str, Any]) -> None: ...

    def diverge(self, message: str, step: int) -> None: ...

    def preempt(self, step: int, reason: BaseException | str | None = None) -> None: ...

    def fail(self, error: BaseException | str) -> None: ...

    def write_provenance(self, **facts: Any) -> None: ...

    def add_provenance(self, **facts: Any) -> None: ...

    def append_metrics(self, *records: Mapping[str, Any]) -> None: ...

    def drop_metrics_after(self, step: int) -> None: ...

    def write_activations(self, counts: "pd.DataFrame") -> None: ...

    def forget_training(self) -> None: ...

    def forget_measured(self) -> None: ...
