"""`moe-study audit`: a table of points, and an exit code that says whether types and measurements agree."""

import pytest

from moe_study.audit import audit as module
from moe_study.cli import main
from moe_study.design.verdict import Verdict


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_points_are_listed_with_both_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "routing=token_top1,sequence_top2", "--trials", "3"]) == 0
    header, causal, leaking, *_ = lines_of(capsys)
    assert header.split()[:4] == ["point", "declared", "measured", "agree"]
    assert causal.split()[:5] == ["routing=token_top1", "causal", "causal", "yes", "-"]
    assert leaking.split()[:8] == ["routing=sequence_top2", *["own", "future"] * 2, "yes", "position", "0"]


def test_seeds_of_one_point_are_audited_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "run.seed=0,1,2", "--trials", "1"]) == 0
    assert sum("causal" in line for line in lines_of(capsys)) == 1


def test_a_disagreement_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "verdict_of", lambda config: Verdict())
    assert main(["audit", "routing=sequence_top2", "--trials", "2"]) == 1
    assert any(" NO " in line for line in lines_of(capsys))


def test_a_point_without_meaning_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "routing.k=9"]) == 1
    assert "lower k or raise N" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--trials", "0"], ["--cost", "runs/x", "routing.k=1"]])
def test_contradicting_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--cost", "runs/0123456789abcdef"]) == 1
    assert "0123456789abcdef" in capsys.readouterr().err
