"""Whatever the design space has by name is known wherever it must be: each failure says what a new one still lacks.

CONTRIBUTING.md lists the same steps. What these places then say of it is compared by the tests that read them.
"""

import functools
import re
from collections.abc import Iterable
from enum import StrEnum

import pytest
import yaml

from moe_study.data.recipes import RECIPES
from moe_study.design.data_config import IMAGE_RECIPES
from moe_study.design.data_options import OPTIONS_OF_RECIPES
from moe_study.design.routing import Context, Gate, RouterKind, RouterState, Routing, Scope, Selection, Unit
from moe_study.design.selections import SELECTIONS
from moe_study.design.unused import ALWAYS, USED
from moe_study.model.moe.build import LAYERS
from moe_study.model.moe.routing.selection import RULES
from moe_study.sweeps.conf import project_root
from tests.audit.table import ROWS
from tests.design.points import COUNTED, DENSE, TOP_K
from tests.model.moe.layer_cases import POINTS

ABOUT_SETTINGS = ("identity", "unused", "validation", "routing_validation", "normal", "choices")  # files of design/
AXES: dict[str, Iterable[StrEnum]] = {
    "selection": Selection,
    "unit": Unit,
    "context": Context,
    "scope": Scope,
    "router": (*RouterKind, *RouterState),
    "gate": Gate,
}


@functools.cache
def sources() -> dict[str, str]:
    """The package's code by file, those of design/ by their bare names."""
    root = project_root() / "moe_study"
    files = {path.relative_to(root).with_suffix("").as_posix(): path.read_text() for path in root.rglob("*.py")}
    return {name.removeprefix("design/"): text for name, text in files.items()}


@pytest.mark.parametrize("selection", Selection)
def test_a_selection_has_facts_code_a_file_and_what_it_is_measured_by(selection: Selection) -> None:
    assert selection in SELECTIONS, f"Selection.{selection.name} has no row of facts in moe_study/design/selections.py"
    assert selection in {*RULES, *LAYERS, Selection.DENSE}, (
        f"Selection.{selection.name} has no code: a class in RULES (moe_study/model/moe/routing/selection.py), or a"
        " layer of its own in LAYERS (moe_study/model/moe/build.py)"
    )
    audited = {routing.selection for routing, _ in ROWS.values()}
    assert selection in audited, f"Selection.{selection.name} has no row in tests/audit/table.py: what it reads"
    counted = {routing.selection for routing in (TOP_K | COUNTED | DENSE).values()} | set(LAYERS)
    assert selection in counted, (
        f"Selection.{selection.name} has no point in tests/design/points.py: in TOP_K where its expert rows per token"
        " are known, in COUNTED where they are measured"
    )
    files = [yaml.safe_load(path.read_text()) or {} for path in (project_root() / "conf" / "routing").glob("*.yaml")]
    named = {file.get("selection", Routing().selection) for file in files}
    assert selection in named, f"selection={selection} stands in no file of conf/routing"


@pytest.mark.parametrize("gate", Gate)
def test_a_gate_is_compared_with_loops(gate: Gate) -> None:
    assert gate in {routing.gate for routing in POINTS.values()}


@pytest.mark.parametrize("router", RouterKind)
def test_a_router_has_a_point(router: RouterKind) -> None:
    points = {routing.router for routing in (TOP_K | COUNTED).values()}
    assert router in points, f"RouterKind.{router.name} has no point in tests/design/points.py"


@pytest.mark.parametrize("name", sorted(ALWAYS | set(USED)))
def test_a_setting_is_read_where_something_is_made_of_it(name: str) -> None:
    """Whether it then does what it says is for tests of its own; one that is read nowhere does nothing."""
    code = "\n".join(text for path, text in sources().items() if path not in ABOUT_SETTINGS)
    field = name.rpartition(".")[2]
    assert re.search(rf"\.{field}\b", code), f"{name} is read nowhere: runs that differ in it would train the same"


def test_a_recipe_of_text_stands_in_both_tables() -> None:
    one, other = set(RECIPES) | set(IMAGE_RECIPES), set(OPTIONS_OF_RECIPES)
    assert one == other, (
        f"{', '.join(one ^ other)}: a recipe stands in RECIPES (moe_study/data/recipes/__init__.py) and, with the type"
        " of its options, in OPTIONS_OF_RECIPES (moe_study/design/data_options.py)"
    )


@pytest.mark.parametrize("axis", AXES)
def test_the_readme_s_table_of_axes_names_every_value(axis: str) -> None:
    text = (project_root() / "README.md").read_text()
    row = re.search(rf"^\| {axis} \| (.*) \|$", text, re.MULTILINE)
    assert row is not None, f"the table of axes in README.md has no row {axis}"
    missing = [str(value) for value in AXES[axis] if f"`{value}`" not in row[1]]
    assert not missing, f"the row {axis} of the table of axes in README.md lacks {', '.join(missing)}"
