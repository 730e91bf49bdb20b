"""Audits kept on disk: read back as they were, and measured anew when anything they depend on changes."""

import math

import pytest

from moe_study.audit import audit as auditing
from moe_study.audit import cache as keeping
from moe_study.audit.audit import audit
from moe_study.audit.cache import AuditCache
from moe_study.audit.measure import Finding, Measured
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Context, Routing, Unit

LEAKS = Measured(own_future=Finding(0.25, 3), mixes_batch=Finding(1e-13), trials=2)


@pytest.fixture
def kept(tmp_path):
    return AuditCache(tmp_path / "audits")


@pytest.fixture
def trials_made(monkeypatch):
    """Numbers of the trials that an audit really made, with nothing remembered from other tests."""
    made: list[int] = []
    real = auditing.trial

    def counted(small, number):
        made.append(number)
        return real(small, number)

    monkeypatch.setattr(auditing, "trial", counted)
    monkeypatch.setattr(auditing, "_measured", {})
    return made


def point(seed: int = 0, **routing) -> RunConfig:
    data = DataConfig(tokenizer=TokenizerConfig("bytes"))
    return RunConfig(model=ModelConfig(), routing=Routing(**routing), data=data, run=RunSettings(seed=seed, steps=1))


def test_what_was_kept_is_read_back_and_nothing_else(kept):
    assert kept.read("a", 2) is None
    kept.write("a", 2, LEAKS)
    assert kept.read("a", 2) == LEAKS
    assert kept.read("a", 3) is None
    assert kept.read("b", 2) is None


def test_another_process_need_not_measure_the_same_point_again(kept, trials_made, monkeypatch):
    first = audit(point(seed=0), 2, kept)
    monkeypatch.setattr(auditing, "_measured", {})  # another process
    assert audit(point(seed=1), 2, kept) == first
    assert trials_made == [0, 1]
    audit(point(unit=Unit.SEQUENCE, context=Context.UNIT_MEAN), 2, kept)
    assert len(trials_made) == 4


def test_changed_code_is_measured_anew(kept, monkeypatch):
    kept.write("a", 2, LEAKS)
    monkeypatch.setattr(keeping, "source_hash", lambda: "other code")
    assert kept.read("a", 2) is None


def test_the_code_that_counts_is_the_models_and_the_audits(tmp_path, monkeypatch):
    for name in ("audit/audit.py", "model/moe/router.py", "data/shards.py", "config.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(keeping, "PACKAGE", tmp_path)
    source_hash = keeping.source_hash.__wrapped__
    before = source_hash()
    (tmp_path / "data" / "shards.py").write_text("2")
    assert source_hash() == before
    (tmp_path / "model" / "moe" / "router.py").write_text("2")
    assert source_hash() != before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"colour": 1}'])
def test_damaged_file_is_measured_anew(kept, text):
    kept.write("a", 2, LEAKS)
    (file,) = kept.folder.iterdir()
    file.write_text(text)
    assert kept.read("a", 2) is None


def test_measurement_that_is_not_finite_is_not_kept(kept):
    kept.write("a", 2, Measured(own_future=Finding(math.nan)))
    assert kept.read("a", 2) is None
