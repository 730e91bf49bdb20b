"""The house: every floor imports only from floors below it, and no import goes in a circle.

All imports count, those inside functions and under TYPE_CHECKING, too.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the roof down. Files on one line may not import one another, except within one folder.
FLOORS = (
    ("moe_study.cli",),
    ("moe_study.commands",),
    ("moe_study.posthoc",),
    ("moe_study.hf",),
    ("moe_study.launch",),
    ("moe_study.training",),
    ("moe_study.analysis",),
    ("moe_study.audit",),
    ("moe_study.sweeps",),
    ("moe_study.model",),
    ("moe_study.data",),
    ("moe_study.runs",),
    ("moe_study.design",),
    ("moe_study.guard",),
    ("moe_study.files",),
    ("moe_study.errors",),
)


def modules(root: Path) -> dict[str, Path]:
    """Name and file of every module of the package below `root`; a package is named by its folder."""
    found = {}
    for path in sorted((root / "moe_study").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(name: str, path: Path, known: dict[str, Path], nodes: list[ast.AST] | None = None) -> set[str]:
    """Modules of the package that a module imports, wherever in its file."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in nodes or nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {full if full in known else base for full in names}
    return {target for target in found if target in known} - {name}


def floor(name: str) -> int:
    """The number of a module's floor, from the roof (0) down; the package itself stands beneath all."""
    for number, rooms in enumerate(FLOORS):
        if any(name == room or name.startswith(room + ".") for room in rooms):
            return number
    assert name == "moe_study", f"{name} stands on no floor: add its folder to FLOORS"
    return len(FLOORS)


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that do not run to a floor below or to the own one."""
    return [
        f"{name} imports {target}"
        for name, targets in graph.items()
        for target in sorted(targets)
        if floor(target) < floor(name)
    ]


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Modules that import one another in a circle, or None."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


@pytest.fixture(scope="module")
def nodes() -> dict[Path, list[ast.AST]]:
    """Of every module's syntax tree."""
    return {path: nodes_of(path) for path in modules(ROOT).values()}


@pytest.fixture(scope="module")
def graph(nodes: dict[Path, list[ast.AST]]) -> dict[str, set[str]]:
    known = modules(ROOT)
    return {name: imports(name, path, known, nodes[path]) for name, path in known.items()}


def test_no_import_runs_up(graph):
    assert upward(graph) == []


def test_no_imports_go_in_a_circle(graph):
    assert circle(graph) is None


def test_every_module_is_seen(graph):
    assert len(graph) == len(list((ROOT / "moe_study").rglob("*.py")))
    assert "moe_study.model.moe.layer" in graph["moe_study.model.moe.build"]
    assert all(floor(name) <= len(FLOORS) for name in graph)


def test_an_import_within_a_function_that_runs_up_is_found(tmp_path):
    (tmp_path / "moe_study" / "runs").mkdir(parents=True)
    (tmp_path / "moe_study" / "cli.py").write_text("")
    (tmp_path / "moe_study" / "runs" / "folder.py").write_text("def f():\n    from moe_study import cli\n")
    known = modules(tmp_path)
    graph = {name: imports(name, path, known) for name, path in known.items()}
    assert upward(graph) == ["moe_study.runs.folder imports moe_study.cli"]


def test_a_circle_of_relative_and_type_checking_imports_is_found(tmp_path):
    (tmp_path / "moe_study").mkdir()
    (tmp_path / "moe_study" / "__init__.py").write_text("")
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import b\n"
    (tmp_path / "moe_study" / "a.py").write_text(typed)
    (tmp_path / "moe_study" / "b.py").write_text("from .a import x\n")
    known = modules(tmp_path)
    graph = {name: imports(name, path, known) for name, path in known.items()}
    assert graph["moe_study.a"] == {"moe_study.b"}
    assert circle(graph) is not None


def test_text_files_are_opened_as_utf_8_whatever_the_locale_says(nodes: dict[Path, list[ast.AST]]) -> None:
    """In an ASCII locale a text without an encoding cannot be read or written."""
    found = []
    for path, own in sorted(nodes.items()):
        for node in own:
            if isinstance(node, ast.Call) and _opens_text_by_locale(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def _opens_text_by_locale(call: ast.Call) -> bool:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in named:
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open" and isinstance(call.func, ast.Name):
        mode = call.args[1] if len(call.args) > 1 else named.get("mode", ast.Constant("r"))
        return "b" not in str(getattr(mode, "value", ""))
    return name in ("read_text", "write_text") or (name in ("run", "Popen", "check_output") and "text" in named)
