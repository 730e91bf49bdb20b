"""What tests of training share."""

import pytest

from moe_study.launch.execute import execute
from tests.training.harness import make_config


@pytest.fixture(scope="session")
def undisturbed(data, tmp_path_factory):
    """The configuration of a run (of NOISY, as `make_config` has it) that nothing disturbed; for reading alone."""
    config = make_config(tmp_path_factory.mktemp("undisturbed"), data)
    execute(config)
    return config
