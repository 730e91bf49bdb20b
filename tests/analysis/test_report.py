import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_study.analysis import report
from moe_study.cli import main
from moe_study.errors import StudyError
from moe_study.runs.members import Launch, record_launch
from tests.analysis import planted

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures have tests of their own; in this process they would only take time."""
    monkeypatch.setattr(report, "draw_all", lambda part, out: [out / "perplexity.png"])


def test_the_report_prints_table_sentences_and_where_files_lie(tmp_path, capsys):
    planted.plant(tmp_path / "runs", seeds=range(5))
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    said = capsys.readouterr().out
    assert "30 runs, 30 done" in said
    assert "token top-2 has lower loss than dense 2x by" in said
    assert "Without a result" not in said
    names = "table, comparisons, equal_cost, pareto, power"
    files = f"answers.md, perplexity.png; as .csv, .parquet, .md and .tex: {names}"
    assert f"{tmp_path / 'plots'}: {files}\n" in said
    assert "sequence top-2 †" in (tmp_path / "plots" / "table.md").read_text()
    compared = pd.read_csv(tmp_path / "plots" / "comparisons.csv")
    assert set(compared["verdict"]) <= {"lower", "higher", "same within the margin", "cannot be told apart"}


def test_pictures_in_a_folder_of_their_own_are_listed_under_it(tmp_path, capsys, monkeypatch):
    planted.plant(tmp_path / "runs", planted.FIRST_LOOK[:2], (0.0, 0.0))
    pages = [f"wiki_topics/information-{page}{kind}" for page in (1, 2) for kind in (".png", ".svg")]
    monkeypatch.setattr(report, "draw_all", lambda part, out: [out / name for name in ("perplexity.png", *pages)])
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    assert f"{tmp_path / 'plots' / 'wiki_topics'}: as .png and .svg: information-*\n" in capsys.readouterr().out


def test_the_report_leads_with_what_is_decided_then_with_what_is_not_and_then_the_table(tmp_path, capsys):
    planted.plant(tmp_path / "runs", seeds=range(4), noise_sd=0.02)
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    lines = capsys.readouterr().out.splitlines()
    heading = next(place for place, line in enumerate(lines) if line.startswith("Answers: "))
    not_decided, table = lines.index("Not decided:"), lines.index("Table:")
    assert heading == 2 and heading < not_decided < table
    assert "one family of 7, Holm-adjusted" in lines[heading] and "none was planned" in lines[heading]
    decided = int(lines[heading].split()[1])
    assert not_decided - heading - 1 == decided > 0
    assert all("has lower loss than" in line or "the same" in line for line in lines[heading + 1 : not_decided])
    assert "would decide it" in lines[not_decided + 1]


def test_every_run_without_a_result_is_named_in_print_and_in_every_file(tmp_path, capsys):
    folders = planted.plant(tmp_path / "runs", seeds=(0, 1, 2))
    planted.set_status(folders[0], "failed", {"type": "DataError", "message": "no shard", "traceback": ""}, 12)
    planted.set_status(folders[4], "diverged", {"type": "Diverged", "message": "not finite", "traceback": ""}, 40)
    (folders[7] / "config.yaml").write_text("{")  # damaged, so nobody knows which point it was
    for folder in folders[9:12]:  # a point whose every seed diverged
        planted.set_status(folder, "diverged", {"type": "Diverged", "message": "not finite", "traceback": ""}, 3)
    shutil.rmtree(folders[17])  # never started
    launch = Launch(runs=tuple(folder.name for folder in folders), names={folders[17].name: "x=1"})
    record_launch(tmp_path / "runs", "mine", launch)
    written = report.draw([tmp_path / "runs"], tmp_path / "plots", sweep="mine")
    texts = [path.read_text().replace(r"\_", "_") for path in written if path.suffix in (".md", ".csv", ".tex")]
    assert len(texts) == 1 + 3 * 5  # answers, and five tables
    fates = [(0, "failed at step 12"), (4, "diverged at step 40"), (7, "is damaged"), (17, "never started")]
    for text in [capsys.readouterr().out, *texts]:
        for place, words in fates:
            line = next(line for line in text.splitlines() if folders[place].name in line and words in line)
            assert place != 17 or "x=1" in line
        assert all(folder.name in text for folder in folders[9:12])


def test_data_sets_have_tables_and_folders_of_their_own(tmp_path, capsys):
    planted.plant(tmp_path / "runs")
    planted.plant(tmp_path / "runs", seeds=(8, 9), context=64)
    written = report.draw([tmp_path / "runs"], tmp_path / "plots")
    folders = {path.parent for path in written}
    assert len(folders) == 2 and all(folder.parent == tmp_path / "plots" for folder in folders)
    assert capsys.readouterr().out.count("Evaluated on parliament_news-") == 2


def test_runs_of_different_code_are_named_under_the_table(tmp_path, capsys):
    folders = planted.plant(tmp_path / "runs")
    for folder in folders:
        record = {"commit": "a" * 40, "diff": "f" * 64 if folder == folders[3] else None}
        (folder / "provenance.json").write_text(json.dumps(record))
    report.draw([tmp_path / "runs"], tmp_path / "plots")
    note = "these runs differ in their code: 11 have aaaaaaaaa, 1 aaaaaaaaa with changes fffffffff (dense 2x, seed 1)"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "plots" / "table.md").read_text()


def test_nothing_done_is_an_error_after_the_list(tmp_path, capsys):
    for folder in planted.plant(tmp_path / "runs"):
        planted.set_status(folder, "running", step=5)
    with pytest.raises(StudyError, match="no run is done yet"):
        report.draw([tmp_path / "runs"], tmp_path / "plots")
    assert "stopped without a word at step 5 of 400" in capsys.readouterr().out


def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path, capsys):
    planted.plant(tmp_path / "runs")
    runs, out = str(tmp_path / "runs"), f"--out={tmp_path / 'o'}"
    assert main(["plots", str(tmp_path / "nowhere")]) == 1
    assert main(["plots", runs, out, "--reference", "dense 9x"]) == 1
    assert main(["plots", runs, out, "--margin", "0"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    assert "the points here are" in errors[1] and "margin" in errors[2]


def test_the_command_takes_a_margin(tmp_path, capsys):
    planted.plant(tmp_path / "runs", seeds=range(4))
    assert main(["plots", str(tmp_path / "runs"), f"--out={tmp_path / 'o'}", "--margin", "0.5"]) == 0
    assert "are the same within 0.5 nats per token" in capsys.readouterr().out


@pytest.mark.long
def test_the_command_draws_twelve_runs_without_torch_in_time(tmp_path):
    planted.plant(tmp_path / "runs")
    code = (
        "import sys, time; from moe_study.cli import main; "
        f"done = main(['plots', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path / 'plots')!r}]); "
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules; "
        "assert time.process_time() < 15, time.process_time(); sys.exit(done)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss-curves" in done.stdout
    assert (tmp_path / "plots" / "experts-by-language.svg").stat().st_size > 10_000
