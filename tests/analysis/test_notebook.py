from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.analysis import planted

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "analysis" / "perplexity.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    planted.plant(tmp_path / "runs")
    monkeypatch.setenv("MOE_STUDY_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in outputs)
    assert "12 runs, 12 done" in said and "sequence top-2 †" in said
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6


def test_the_committed_notebook_has_no_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)
