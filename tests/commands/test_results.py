"""`moe-study results`: flags that ask for more than one thing."""

from moe_study.cli import main
from moe_study.posthoc import trace
from moe_study.runs.members import Launch, record_launch
from tests.analysis import planted


def test_every_probe_that_is_named_is_read_by_every_finished_run(tmp_path, monkeypatch):
    folders = planted.plant(tmp_path / "runs", (planted.DENSE_1X,), (0.0,), seeds=(0, 1))
    record_launch(tmp_path / "runs", "mine", Launch((), tuple(folder.name for folder in folders)))
    read = []
    monkeypatch.setattr(trace, "probe_of", lambda folder, name, tokens, progress: (name, tokens))
    monkeypatch.setattr(trace, "trace_run", lambda folder, probe, progress: read.append((folder.key, *probe)))
    flags = ["--probe", "brown", "--probe", "mmlu", "--probe", "brown", "--tokens", "7"]
    main(["results", str(tmp_path / "runs"), "--sweep", "mine", "--out", str(tmp_path / "results"), *flags])
    assert sorted(read) == sorted((folder.name, name, 7) for folder in folders for name in ("brown", "mmlu"))
