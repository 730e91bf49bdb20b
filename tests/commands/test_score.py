"""`moe-study score` as it is typed. Runs and questions are those of tests/posthoc/lm_eval/test_score.py."""

import pytest

from moe_study.cli import main
from moe_study.posthoc.lm_eval import harness, items
from moe_study.runs.listing import list_runs
from tests.posthoc.lm_eval.test_score import runs, trained  # noqa: F401  # fixtures


@pytest.fixture
def score(runs, capsys):  # noqa: F811
    """Runs the command: exit code, what was printed, what was complained about."""

    def command(*arguments):
        code = main(["score", "--runs-dir", str(runs), "--items", "12", "--tasks", "cloze", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_runs_by_key_are_scored_and_compared(runs, score):  # noqa: F811
    keys = [folder.key for folder in list_runs(runs)]
    code, out, _ = score(*keys, "--tasks", "cloze")
    assert code == 0 and out.count("cloze acc") == 2
    header = next(line for line in out.splitlines() if line.startswith("task "))
    assert "chance" in header and "Δ to dense" in header
    assert "left out: " in out and "--growing-prefixes" in out
    code, out, _ = score(*(key[:9] for key in keys), "--tasks", "cloze", "--growing-prefixes")
    assert code == 0 and "†" in out and "growing prefixes: each token's probability" in out


def test_what_cannot_be_asked_is_one_sentence(runs, score):  # noqa: F811
    key = list_runs(runs)[0].key
    cases = (
        ((), "say which runs to score"),
        ((key, "--sweep", "x"), "say which runs to score"),
        (("zzzz",), "no run in"),
        ((key, "--tasks", ","), "name at least one task"),
        ((key, "--items", "0"), "asks nothing"),
        ((key, "--reference", "dense 9x"), "no finished run is called dense 9x"),
    )
    for arguments, said in cases:
        code, _, err = score(*arguments)
        assert code == 1 and said in err and err.count("\n") == 1, (arguments, err)


def test_without_the_harness_nothing_is_read(runs, score, monkeypatch):  # noqa: F811
    monkeypatch.setattr(harness, "importlib", None)
    monkeypatch.setattr("moe_study.posthoc.lm_eval.score.harness_version", missing)
    monkeypatch.setattr(items, "cloze_items", lambda *_: pytest.fail("made questions"))
    code, _, err = score(list_runs(runs)[0].key)
    assert code == 1 and err.count("\n") == 1 and "pip install 'moe-study[score]'" in err


def missing():
    from moe_study.errors import StudyError

    raise StudyError(harness.MISSING)
