"""transformers takes seconds to import: what needs it is got from here, and no test of it is part of `make test`."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from moe_study.sweeps.compose import Composer, open_composer


@pytest.fixture(scope="session")
def hf() -> ModuleType:
    import moe_study.hf

    return moe_study.hf


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened
