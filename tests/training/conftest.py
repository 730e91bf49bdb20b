import pytest

from moe_study.data import prepare
from tests.fixtures import tiny_data_config


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Configuration of a prepared corpus of 2 languages by 2 topics, in bytes."""
    config = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(config, progress=False)
    return config
