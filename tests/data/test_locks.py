import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from moe_study.data.locks import locked
from moe_study.errors import DataError


def test_the_second_waits_for_the_first_and_says_so_once(tmp_path: Path) -> None:
    events: list[str] = []
    inside = threading.Event()

    def first() -> None:
        with locked(tmp_path / "lock"):
            inside.set()
            time.sleep(0.2)
            events.append("first leaves")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with locked(tmp_path / "lock", on_wait=lambda: events.append("second waits")):
        events.append("second is in")
    thread.join()
    assert events == ["second waits", "first leaves", "second is in"]


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from moe_study.data.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], env=environment)
    waited: list[bool] = []
    with locked(tmp_path / "lock", on_wait=lambda: waited.append(True)):
        pass
    assert waited == []


def test_an_error_inside_lets_the_lock_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    with locked(tmp_path / "lock", on_wait=lambda: pytest.fail("still locked")):
        pass


def test_a_place_where_no_lock_can_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"), locked(tmp_path / "file" / "lock"):
        pass
