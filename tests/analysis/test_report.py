import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_study.analysis import report
from moe_study.errors import StudyError
from tests.analysis import planted

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures have tests of their own; in this process they would only take time."""
    monkeypatch.setattr(report, "draw_all", lambda runs, out, reference, problems: [out / "perplexity.png"])


def test_the_report_prints_table_sentences_and_where_files_lie(tmp_path, capsys):
    planted.plant(tmp_path / "runs", seeds=range(5))
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    said = capsys.readouterr().out
    assert "30 runs, 30 done" in said
    assert "token top-2 has lower loss than dense 2x by" in said
    assert "Not in the table" not in said
    assert f"{tmp_path / 'plots'}: table.md, table.csv, comparisons.csv; as .png and .svg: perplexity" in said
    assert "sequence top-2 †" in (tmp_path / "plots" / "table.md").read_text()
    compared = pd.read_csv(tmp_path / "plots" / "comparisons.csv")
    assert set(compared["verdict"]) <= {"lower", "higher", "same within the margin", "cannot be told apart"}


def test_two_seeds_are_reported_with_their_pooled_noise(tmp_path, capsys):
    planted.plant(tmp_path / "runs", noise_sd=0.02)
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    said = capsys.readouterr().out
    assert "with 2 seeds the interval is too wide to tell" in said
    assert "(4 degrees, " in said  # five ranked points


def test_runs_that_are_not_done_are_listed_and_the_rest_is_reported(tmp_path, capsys):
    folders = planted.plant(tmp_path / "runs")
    planted.set_status(folders[0], "failed", {"type": "DataError", "message": "no shard", "traceback": ""}, 12)
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    said = capsys.readouterr().out
    assert "Not in the table:" in said and "failed at step 12 of 400: DataError: no shard" in said


def test_data_sets_have_tables_and_folders_of_their_own(tmp_path, capsys):
    planted.plant(tmp_path / "runs")
    planted.plant(tmp_path / "runs", seeds=(8, 9), context=64)
    written = report.draw([tmp_path / "runs"], tmp_path / "plots")
    folders = {path.parent for path in written}
    assert len(folders) == 2 and all(folder.parent == tmp_path / "plots" for folder in folders)
    assert capsys.readouterr().out.count("Evaluated on parliament_news-") == 2


def test_nothing_done_is_an_error_after_the_list(tmp_path, capsys):
    for folder in planted.plant(tmp_path / "runs"):
        planted.set_status(folder, "running", step=5)
    with pytest.raises(StudyError, match="no run is done yet"):
        report.draw([tmp_path / "runs"], tmp_path / "plots")
    assert "stopped without a word at step 5 of 400" in capsys.readouterr().out


def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path, capsys):
    planted.plant(tmp_path / "runs")
    assert report.main([str(tmp_path / "nowhere")]) == 1
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "o"), "--reference", "dense 9x"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: ") for line in errors)
    assert "the points here are" in errors[1]


@pytest.mark.slow
def test_the_command_draws_twelve_runs_without_torch_in_time(tmp_path):
    planted.plant(tmp_path / "runs")
    code = (
        "import sys, time; from moe_study.analysis.report import main; "
        f"done = main([{str(tmp_path / 'runs')!r}, '--out', {str(tmp_path / 'plots')!r}]); "
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules; "
        "assert time.process_time() < 15, time.process_time(); sys.exit(done)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss-curves" in done.stdout
    assert (tmp_path / "plots" / "experts-by-language.svg").stat().st_size > 10_000
