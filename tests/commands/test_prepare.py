"""`moe-study prepare`: what it says at its end, and what it refuses."""

from pathlib import Path

import pytest

from moe_study.cli import main


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """One domain of 20 texts and one of a single short one."""
    for topic, texts in (("law", 20), ("art", 1)):
        (tmp_path / "texts" / topic).mkdir(parents=True)
        for number in range(texts):
            (tmp_path / "texts" / topic / f"{number}.txt").write_text(f"{topic} number {number}. " * (texts * 4))
    (tmp_path / "texts" / "notes.md").write_text("not asked for")
    return ["prepare", "data=local_files", f"data.options.path={tmp_path}/texts", "data.options.folders=[topic]",
            "data.tokenizer.kind=bytes", "data.validation_fraction=0.3", f"data.root={tmp_path}/data",
            f"log.runs_dir={tmp_path}/runs"]  # fmt: skip


def test_it_ends_with_what_was_read_left_out_and_of_no_use(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second time, too, when there is nothing to do."""
    said = []
    for _ in range(2):
        assert main([*arguments, "model.context=64,100,60000", "run.seed=0,1"]) == 0
        said.append(capsys.readouterr().out.splitlines())
    first = said[0]
    assert said[1] == first
    assert first[0].startswith("read: 21 files, 21 documents, ")
    assert first[1] == "left out: 1 not .txt, .jsonl or .parquet (notes.md)"
    assert sum("1 of 2 domains are never trained on" in line for line in first) == 2
    assert sum("unknown/art" in line and "model.context=100 " in line for line in first) >= 1
    assert sum("2 of 2 domains are never trained on" in line for line in first) == 1
    assert first[-1].startswith("local_files is ready in ")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+data.options.patern=x", "unknown key data.options.patern; did you mean data.options.pattern"),
        ("data.options.limits.rfc=3", "is added by +data.options.limits.rfc=VALUE"),
        ("data.options.pattern=/x/*", "begins with /"),
        ("data.options.folders=[language,tpoic]", "tpoic is unknown; use language, topic or _"),
        ("model.heads=7", "must be a multiple of model.heads=7"),
    ],
)
def test_a_configuration_without_meaning_is_refused_before_anything_is_read(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, sentence: str
) -> None:
    assert main([*arguments, override]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_every_file_that_cannot_be_read_is_told_without_a_traceback(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts" / "law" / "bad.txt").write_bytes(b"a\ngr\xfc\xdfe")
    (tmp_path / "texts" / "law" / "bad.jsonl").write_text('{"text": "a", "n": ' + "9" * 5000 + "}")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "bad.txt line 2 is not UTF-8" in said and "bad.jsonl line 1 cannot be read: a number in it" in said
    assert "Traceback" not in said
