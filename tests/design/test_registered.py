"""Whatever the design space has by name is known wherever it must be: each failure says what a new one still lacks.

CONTRIBUTING.md lists the same steps. What these places then say of it is compared by the tests that read them.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

import pytest
import yaml

from moe_study.design.routing import Context, Gate, RouterKind, RouterState, Routing, Scope, Selection, Unit
from moe_study.design.selections import SELECTIONS
from moe_study.model.moe.build import LAYERS
from moe_study.model.moe.routing.selection import RULES
from moe_study.sweeps.conf import project_root
from tests.audit.table import ROWS
from tests.design.points import COUNTED, DENSE, TOP_K
from tests.model.moe.layer_cases import GATES

AXES: dict[str, Iterable[StrEnum]] = {
    "selection": Selection,
    "unit": Unit,
    "context": Context,
    "scope": Scope,
    "router": (*RouterKind, *RouterState),
    "gate": Gate,
}


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
    assert gate in {routing.gate for routing in GATES.values()}


@pytest.mark.parametrize("router", RouterKind)
def test_a_router_has_a_point(router: RouterKind) -> None:
    points = {routing.router for routing in (TOP_K | COUNTED).values()}
    assert router in points, f"RouterKind.{router.name} has no point in tests/design/points.py"


@pytest.mark.parametrize("axis", AXES)
def test_the_readme_s_table_of_axes_names_every_value(axis: str) -> None:
    text = (project_root() / "README.md").read_text()
    row = re.search(rf"^\| {axis} \| (.*) \|$", text, re.MULTILINE)
    assert row is not None, f"the table of axes in README.md has no row {axis}"
    missing = [str(value) for value in AXES[axis] if f"`{value}`" not in row[1]]
    assert not missing, f"the row {axis} of the table of axes in README.md lacks {', '.join(missing)}"
