import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One downloads folder for all tests that read from the package index; MOE_STUDY_OFFLINE=1 skips them."""
    if os.environ.get("MOE_STUDY_OFFLINE") == "1":
        pytest.skip("needs the package index, and MOE_STUDY_OFFLINE=1 says that there is none")
    return tmp_path_factory.mktemp("downloads")
