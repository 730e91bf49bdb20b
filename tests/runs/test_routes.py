"""Files of routes: what is written comes back, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from moe_study.errors import DataError
from moe_study.runs.routes import all_routes, drop_routes, read_routes, steps_of, write_routes
from moe_study.runs.traces import RoutesPart

TOKEN_T, START_D1 = np.array([5, 300, 7, 8, 9, 5]), np.array([0, 3, 6])
LANGUAGES = {"language": (np.array([1, 0]), ("de", "en"))}
RAGGED = RoutesPart(
    count_N=np.array([1, 2, 0, 1, 3, 1]),
    expert_P=np.array([0, 0, 2, 1, 0, 1, 2, 2]),
    weight_P=np.linspace(0.25, 1, 8),
    kept_P=np.arange(8) % 3 > 0,
    entropy_N=np.full(6, np.nan),
    margin_N=np.arange(6) / 8,
)


def write(routes: Path, step: int, fingerprint: str = "f", part: RoutesPart = RAGGED) -> None:
    with write_routes(routes, "key", fingerprint, step, 10 * step) as writer:
        writer.facts = {"window": 3}
        writer.add_probe(TOKEN_T, START_D1, LANGUAGES, {})
        writer.add_loss(np.arange(6.0))
        writer.add_layer(1, 3, 1)
        writer.add_routes(1, part)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "routes", 20)
    trace = read_routes(tmp_path / "routes", 20)
    assert (trace.step, trace.trained, trace.layers, trace.window) == (20, 200, [1], 3)
    layer = trace.layer(1)
    assert layer["token_T"].tolist() == TOKEN_T.tolist()
    assert layer["document_T"].tolist() == [0, 0, 0, 1, 1, 1]
    assert layer["start_T1"].tolist() == [0, 1, 3, 3, 4, 7, 8]
    assert layer["expert_P"].tolist() == RAGGED.expert_P.tolist()
    assert layer["kept_P"].tolist() == (np.arange(8) % 3 > 0).tolist()
    np.testing.assert_allclose(layer["weight_P"], RAGGED.weight_P, rtol=1e-3)
    assert layer["margin_T"].tolist() == (np.arange(6) / 8).tolist()
    assert np.isnan(layer["entropy_T"]).all()
    codes, values = layer["document_labels"]["language"]
    assert codes.tolist() == [1, 0] and values == ("de", "en")
    assert trace.loss_T.tolist() == list(range(6))


def test_steps_come_in_the_order_of_training_and_the_bytes_do_not_depend_on_the_time(tmp_path: Path) -> None:
    for step in (100_000_000, 0, 30, 4):
        write(tmp_path, step)
    assert steps_of(tmp_path) == [trace.step for trace in all_routes(tmp_path)] == [0, 4, 30, 100_000_000]
    assert steps_of(tmp_path / "absent") == []
    before = (tmp_path / "step-00000004.npz").read_bytes()
    write(tmp_path, 4)
    assert (tmp_path / "step-00000004.npz").read_bytes() == before


def test_an_error_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_routes(tmp_path, "key", "f", 3, 30) as writer:
        writer.add_probe(TOKEN_T, START_D1, LANGUAGES, {})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_later_steps_and_other_probes_are_dropped(tmp_path: Path) -> None:
    for step, fingerprint in ((0, "old"), (5, "new"), (10, "new"), (15, "new")):
        write(tmp_path, step, fingerprint)
    drop_routes(tmp_path, after=12)
    assert steps_of(tmp_path) == [0, 5, 10]
    (tmp_path / "step-00000010.npz").write_bytes(b"half")
    drop_routes(tmp_path, after=12, other_than="new")
    assert steps_of(tmp_path) == [5]


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    write(tmp_path, 0)
    path = tmp_path / "step-00000000.npz"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(DataError, match=r"step-00000000\.npz is damaged; delete it"):
        read_routes(tmp_path, 0)


def test_a_file_of_another_version_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_study.runs.traces.FORMAT", 99)
    write(tmp_path, 0)
    with pytest.raises(DataError, match="another version"):
        read_routes(tmp_path, 0)
