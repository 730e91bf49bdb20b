"""`moe-study results`: flags that ask for more than one thing."""

import argparse

from moe_study.analysis.frame import load_frame
from moe_study.commands import results
from moe_study.posthoc import trace
from tests.analysis import planted


def test_every_probe_that_is_named_is_read_by_every_finished_run(tmp_path, monkeypatch):
    folders = planted.plant(tmp_path, (planted.DENSE_1X,), (0.0,), seeds=(0, 1))
    read = []
    monkeypatch.setattr(trace, "probe_of", lambda folder, name, tokens, progress: (name, tokens))
    monkeypatch.setattr(trace, "trace_run", lambda folder, probe, progress: read.append((folder.key, *probe)))
    commands = argparse.ArgumentParser().add_subparsers()
    flags = ["--probe", "brown", "--probe", "mmlu", "--probe", "brown", "--tokens", "7"]
    options = results.add_parser(commands).parse_args([str(tmp_path), *flags])
    results.MEASURES["probe"](options, load_frame([tmp_path]))
    assert sorted(read) == sorted((folder.name, name, 7) for folder in folders for name in ("brown", "mmlu"))
