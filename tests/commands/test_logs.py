"""`moe-study logs`."""

import threading
import time

from moe_study.cli import main
from moe_study.commands import logs
from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.runs.folder import RunFolder


def run_with_log(runs_dir, text):
    config = RunConfig(run=RunSettings(seed=1, steps=10), log=LogConfig(runs_dir=str(runs_dir)))
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
    folder.log_file.write_bytes(text)
    return folder, config


def test_a_log_is_printed_whatever_bytes_it_holds(tmp_path, capsys):
    folder, _ = run_with_log(tmp_path, "step 1: größer\n".encode() + b"\xff\n")
    assert main(["logs", folder.key[:6], "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "step 1: größer\n\ufffd\n"


def test_a_log_is_followed_until_the_run_ends(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logs, "PAUSE", 0.01)
    folder, config = run_with_log(tmp_path, b"one\n")

    def train():
        with folder.claim(config):
            folder.start(10)
            started.set()
            time.sleep(0.1)
            with open(folder.log_file, "a") as handle:
                handle.write("two\n")
            folder.finish({})

    started = threading.Event()
    training = threading.Thread(target=train)
    training.start()
    started.wait()
    assert main(["logs", str(folder.path), "--follow"]) == 0
    training.join()
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_run_without_a_log_is_one_sentence(tmp_path, capsys):
    folder, _ = run_with_log(tmp_path, b"")
    folder.log_file.unlink()
    assert main(["logs", str(folder.path)]) == 1
    assert "has no log" in capsys.readouterr().err
