import pytest

from moe_study.data import prepare
from moe_study.training import run
from tests.fixtures import tiny_data_config


@pytest.fixture(scope="module", autouse=True)
def few_trials():
    """Measuring a run's causality would take three quarters of its time; tests/audit is about that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "RUN_TRIALS", 2)
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Configuration of a prepared corpus of 2 languages by 2 topics, in bytes."""
    config = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(config, progress=False)
    return config
