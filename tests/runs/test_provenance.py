"""What a run records of the code that made it, in clones and in installed packages made for the purpose."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from moe_study.runs import provenance
from moe_study.runs.provenance import code_of


def git(folder, *arguments):
    names = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(folder)}
    for who in ("AUTHOR", "COMMITTER"):
        names |= {f"GIT_{who}_NAME": "someone", f"GIT_{who}_EMAIL": "someone@example.org"}
    command, environment = ["git", "-C", str(folder), *arguments], {**os.environ, **names}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def clone(tmp_path):
    """A committed package of two modules; the package's folder."""
    package = tmp_path / "clone" / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "module.py").write_text("x = 1\n")
    (package.parent / ".gitignore").write_text("__pycache__/\nignored.py\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", "-A")
    git(package.parent, "commit", "-qm", "First")
    return package


def test_the_project_itself_knows_its_commit():
    """A move of the module must not lose it."""
    root = provenance.PACKAGE.parent
    assert (root / "train.py").exists()
    if (root / ".git").exists():
        assert code_of(provenance.PACKAGE)["commit"] == git(root, "rev-parse", "HEAD")


def test_a_clean_clone_is_its_commit(clone):
    (clone / "__pycache__").mkdir()
    (clone / "__pycache__" / "module.pyc").write_bytes(b"\0")
    (clone.parent / "notes.py").write_text("outside of the package")
    code = code_of(clone)
    assert (code["commit"], code["diff"]) == (git(clone, "rev-parse", "HEAD"), None)


def change_tracked(clone):
    (clone / "inner" / "module.py").write_text("x = 2\n")


def add_module(clone):
    (clone / "inner" / "new.py").write_text("y = 1\n")


def add_ignored_module(clone):
    (clone / "ignored.py").write_text("y = 1\n")


def stage_module(clone):
    add_module(clone)
    git(clone, "add", "-A")


@pytest.mark.parametrize("change", [change_tracked, add_module, add_ignored_module, stage_module])
def test_whatever_is_not_committed_counts_as_a_change(clone, change):
    before = code_of(clone)
    change(clone)
    after = code_of(clone)
    assert after["commit"] == before["commit"]
    assert after["diff"] is not None
    assert after["sources"] != before["sources"]


def test_two_contents_of_an_untracked_module_are_two_changes(clone):
    add_module(clone)
    first = code_of(clone)
    assert code_of(clone) == first
    (clone / "inner" / "new.py").write_text("y = 2\n")
    assert code_of(clone)["diff"] != first["diff"]


def test_an_installed_package_is_known_by_its_sources(clone, tmp_path):
    """Also where it lies within somebody else's repository."""
    somebody = tmp_path / "somebody"
    git(tmp_path, "init", "-q", str(somebody))
    installed = shutil.copytree(clone, somebody / "venv" / "site-packages" / "package")
    code = code_of(installed)
    assert (code["commit"], code["diff"]) == (None, None)
    assert code["sources"] == code_of(clone)["sources"]
    (installed / "inner" / "module.py").rename(installed / "inner" / "renamed.py")
    assert code_of(installed)["sources"] != code["sources"]


def test_the_version_is_the_installed_one(clone, monkeypatch):
    monkeypatch.setattr(provenance, "_version", {"moe-study": "1.2"}.get)
    assert code_of(clone)["version"] == "1.2"


def test_a_record_names_the_processor():
    record = provenance.collect()
    assert record["cpu"] and record["cpu"] in Path("/proc/cpuinfo").read_text()
    assert record["versions"]["torch"] and set(provenance.code_version()) <= set(record)
