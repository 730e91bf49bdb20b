"""Arrays that more values are appended to, in memory or in a file: what traces are written with."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class GrowingArray:
    """Values of one type that more are appended to, in memory."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self.length = dtype, 0
        self._parts: list[Array] = []

    def append(self, values: Array) -> None:
        self._parts.append(np.array(values, self.dtype))
        self.length += len(values)

    def values(self) -> Array:
        """All of them, once closed."""
        return np.concatenate([np.empty(0, self.dtype), *self._parts])

    def close(self) -> None: ...

    def delete(self) -> None: ...


class FileArray(GrowingArray):
    """The same in a file."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        super().__init__(dtype)
        self._path = path
        self._handle = open(path, "wb")  # noqa: SIM115 (closed by the writer)

    def append(self, values: Array) -> None:
        self._handle.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.length += len(values)

    def values(self) -> Array:
        return np.memmap(self._path, self.dtype, "r") if self.length else np.empty(0, self.dtype)

    def close(self) -> None:
        if not self._handle.closed:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()

    def delete(self) -> None:
        self._path.unlink()
