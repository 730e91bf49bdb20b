"""The package as pip installs it: built into a wheel, unpacked far from any clone, and used from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("moe_study", "hydra_plugins", "conf", "sweeps", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in site-packages after `pip install .`."""
    clone, wheels, site = (tmp_path_factory.mktemp(name) for name in ("clone", "wheels", "site"))
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
        else:
            shutil.copy(ROOT / name, clone / name)
    for licence in ROOT.glob("LICEN[CS]E*"):
        shutil.copy(licence, clone)
    build = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(clone))
    done = subprocess.run([sys.executable, *build], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def moe_study(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "moe_study.cli", *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheel_holds_what_conf_and_sweeps_hold(installed: Path) -> None:
    for folder in ("conf", "sweeps"):
        ours = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / folder).rglob("*.yaml")}
        shipped = installed / "moe_study" / "shipped"
        assert ours
        assert {path.relative_to(shipped): path.read_bytes() for path in (shipped / folder).rglob("*.yaml")} == ours
    assert not (installed / "tests").exists()


def test_the_wheel_holds_the_tasks_of_the_score_command(installed: Path) -> None:
    folder = Path("moe_study", "posthoc", "lm_eval")
    ours = {path.name: path.read_bytes() for path in (ROOT / folder).glob("*.yaml")}
    assert {"cloze.yaml", "topic.yaml"} <= ours.keys()
    assert {path.name: path.read_bytes() for path in (installed / folder).glob("*.yaml")} == ours


def test_the_wheel_holds_the_files_of_the_page(installed: Path) -> None:
    folder = Path("moe_study", "analysis", "page", "files")
    ours = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir()}
    assert {"page.html", "page.css", "charts.js"} <= ours.keys()
    assert {path.name: path.read_bytes() for path in (installed / folder).iterdir()} == ours


def test_it_plans_and_trains_from_any_folder_and_finds_sweeps_of_that_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("of: another program\n")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("points: [{routing: [dense, token_top1]}]\n")
    planned = moe_study(installed, tmp_path, "plan", "+sweep=first_look")
    assert planned.returncode == 0, planned.stderr
    assert "to train" in planned.stdout
    assert "2 run(s) (2 missing), 2 to train" in moe_study(installed, tmp_path, "plan", "+sweep=mine").stdout
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"Text number {number}, of some words. " * 40)
    data = ["data=local_files", "data.options.path=texts", "data.tokenizer.kind=bytes", "data.validation_fraction=0.3"]
    small = ["run.steps=2", "run.tokens=null", "run.eval_tokens=1024", "model.width=12", "log.threads=1"]
    assert moe_study(installed, tmp_path, "prepare", *data).returncode == 0
    one = moe_study(installed, tmp_path, "train", "routing=dense", *data, *small)
    assert one.returncode == 0, one.stderr
    assert "is done: validation perplexity" in one.stdout
    several = moe_study(installed, tmp_path, "train", "-m", "+sweep=mine", *data, *small)
    assert several.returncode == 0, several.stderr
    assert "mine: 2 runs (1 missing, 1 done); 1 to train now" in several.stderr
    assert "mine: 2 done" in several.stderr
