import dataclasses
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from IPython.display import Markdown
from matplotlib.figure import Figure
from nbclient import NotebookClient

from moe_study.design.config import TokenizerConfig
from tests.analysis import planted
from tests.analysis.plots.found import keep_findings, keep_knockout, keep_trace, knockout, layers_of
from tests.analysis.test_scores import answers, keep

ROOT = Path(__file__).parents[2]
NAMES = ("perplexity", "specialisation", "efficiency")
PERPLEXITY, SPECIALISATION, EFFICIENCY = (ROOT / "analysis" / f"{name}.ipynb" for name in NAMES)


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    planted.plant(tmp_path / "runs")
    outputs = outputs_of(PERPLEXITY, tmp_path, monkeypatch)
    said = said_in(outputs)
    assert "12 runs, 12 done" in said and "sequence top-2 †" in said
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6


@pytest.mark.long
def test_the_notebook_of_experts_runs_from_top_to_bottom(tmp_path, monkeypatch):
    plant_found(tmp_path / "runs")
    outputs = outputs_of(SPECIALISATION, tmp_path, monkeypatch)
    assert "Do experts follow language?" in said_in(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 8


@pytest.mark.long
def test_the_notebook_of_costs_runs_from_top_to_bottom(tmp_path, monkeypatch):
    planted.plant(tmp_path / "runs")
    outputs = outputs_of(EFFICIENCY, tmp_path, monkeypatch)
    assert "12 runs, 12 done" in said_in(outputs) and "its twin there is dense 2x" in said_in(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def outputs_of(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Of all its cells, run on tmp_path/runs as Jupyter would."""
    monkeypatch.setenv("MOE_STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    read = nbformat.read(notebook, as_version=4)
    NotebookClient(read, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return [output for cell in read.cells if cell.cell_type == "code" for output in cell.outputs]


def said_in(outputs: list[dict[str, Any]]) -> str:
    return "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in outputs)


def plant_found(root: Path) -> list[Path]:
    """Two seeds of one point with findings and traces, whose experts follow language."""
    folders = []
    for seed in (0, 1):
        config = planted.config_of(planted.TOKEN_2, seed)
        data = dataclasses.replace(config.data, tokenizer=TokenizerConfig("bytes", None))
        folder = planted.plant_run(root, dataclasses.replace(config, data=data), 4.0, np.random.default_rng(seed))
        layers = layers_of("language", seed, top=2)
        keep_trace(folder, keep_findings(folder, layers, ("information", "shares")), layers)
        folders.append(folder)
    return folders


def cells_run(notebook: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[Any]]:
    """Its cells run here, which is quicker than in a kernel: (its names, what it displayed)."""
    displayed: list[Any] = []
    monkeypatch.setenv("MOE_STUDY_RUNS", str(runs))
    monkeypatch.setattr("IPython.display.display", lambda *shown: displayed.extend(shown))
    names: dict[str, Any] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
            exec("\n".join(lines), names)
    return names, displayed


def test_the_notebook_of_perplexity_shows_the_table_and_every_picture(tmp_path, monkeypatch, capsys):
    planted.plant(tmp_path)
    _, displayed = cells_run(PERPLEXITY, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "12 runs, 12 done" in said and r"sequence top-2 \textdagger{} &" in said
    assert ["sequence top-2 †" in shown.data for shown in displayed if isinstance(shown, Markdown)] == [True]
    assert len([shown for shown in displayed if isinstance(shown, Figure)]) == 6


def test_the_notebook_of_perplexity_shows_scores_where_runs_were_asked(tmp_path, monkeypatch):
    for folder in planted.plant(tmp_path, planted.FIRST_LOOK[:2], (0.0, 0.0)):
        keep(folder, answers(0.5, 0))
    _, displayed = cells_run(PERPLEXITY, tmp_path, monkeypatch)
    tables = [shown.data for shown in displayed if isinstance(shown, Markdown)]
    assert len(tables) == 2 and "| cloze (120) | acc | dense 1x | 2 |" in tables[1]


def test_the_notebook_of_costs_shows_every_cost_and_the_points_at_equal_cost(tmp_path, monkeypatch, capsys):
    planted.plant(tmp_path)
    names, displayed = cells_run(EFFICIENCY, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "12 runs, 12 done" in said and "total parameters" in said and "its twin there is dense 2x" in said
    (table,) = [shown.data for shown in displayed if isinstance(shown, Markdown)]
    assert "sequence top-2 † |" in table and "train seconds" in table
    (figure,) = [shown for shown in displayed if isinstance(shown, Figure)]
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert labels == ["total parameters", "active parameters", "forward FLOPs per token", "training time, seconds"]
    speed = names["speed"]
    assert list(speed["seconds_per_million_tokens"]) == pytest.approx(list(1e6 / speed["tokens_per_second"]))


def test_the_notebook_of_experts_shows_what_was_found_and_tells_what_to_type(tmp_path, monkeypatch, capsys):
    plant_found(tmp_path)
    names, displayed = cells_run(SPECIALISATION, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "probe planted, 1.2k tokens, 40 documents: information, shares" in said
    assert "Do experts follow language?" in said and f"type: moe-study knockout {tmp_path} --probe planted" in said
    assert len([shown for shown in displayed if isinstance(shown, Figure)]) >= 7
    row, profile = names["row"], names["profile"]
    assert (profile.layer, profile.expert) == (row["layer"], row["expert"]) and profile.domains[0].lift > 1
    assert {one.name: one.share for one in profile.domains}[row["domain"]] == pytest.approx(row["share"])


def test_the_notebook_of_experts_shows_knock_outs_and_says_where_a_trace_is_gone(tmp_path, monkeypatch, capsys):
    (folder,) = planted.plant(tmp_path, (planted.TOKEN_2,), (0.0,), seeds=(0,))
    keep_findings(folder, layers_of("language", layers=1, top=2), ("shares",))
    keep_knockout(folder, knockout("", 4, ["de", "en", "fr", "it"]))
    _, displayed = cells_run(SPECIALISATION, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert (
        "planted: of 32 pairs of an expert and a domain, the expert is needed in 8" in said
        and f"type: moe-study inspect {folder} --expert 0." in said
    )
    assert [shown.data["change"].max() for shown in displayed if hasattr(shown, "data")] == [0.101]


def test_the_notebook_of_experts_works_where_nothing_was_found(tmp_path, monkeypatch, capsys):
    planted.plant(tmp_path, (planted.TOKEN_2,), (0.0,))
    _, displayed = cells_run(SPECIALISATION, tmp_path, monkeypatch)
    assert f"No run was measured on a probe yet; type: moe-study specialise {tmp_path}" in capsys.readouterr().out
    assert displayed == []


@pytest.mark.parametrize("notebook", [PERPLEXITY, SPECIALISATION, EFFICIENCY], ids=lambda path: path.stem)
def test_the_committed_notebooks_have_no_outputs(notebook):
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)
