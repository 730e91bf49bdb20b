"""A part of many cases for `make test`; the others are marked long, so that `make test-all` and CI run them all."""

from collections.abc import Iterable
from typing import Any

import pytest


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Values for pytest.mark.parametrize: the first of `cases` and each `step`-th after it, and the others as long.

    A tuple holds the values of several arguments.
    """
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*own, marks=() if place % step == 0 else pytest.mark.long) for place, own in enumerate(values)
    ]
