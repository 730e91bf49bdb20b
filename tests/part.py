"""A part of many cases for `make test`; the others are marked long, so that `make test-all` and CI run them all."""

from collections.abc import Iterable
from typing import Any

import pytest


def every(step: int, names: Iterable[str]) -> list[Any]:
    """Values for pytest.mark.parametrize: the first of `names` and each `step`-th after it, and the others as long."""
    return [
        pytest.param(name, marks=() if place % step == 0 else pytest.mark.long) for place, name in enumerate(names)
    ]
