"""Which tables have the columns that they should have."""

import math

import pandas as pd
import pytest

from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.runs.columns import Holds, fault_of

COLUMNS = {"layer": Holds.PLACE, "label": Holds.TEXT, "count": Holds.AMOUNT, "p": Holds.NUMBER, "null": Holds.LIST}
TABLE = pd.DataFrame(
    {"layer": [0, 1], "label": ["de", "العربية"], "count": [3, 2.5], "p": [0.1, math.nan], "null": [[0.5], []]}
)


def test_a_whole_table_has_no_fault_whatever_else_stands_in_it():
    assert fault_of(TABLE.assign(more="x"), COLUMNS) is None
    assert fault_of(TABLE.assign(p=math.nan), COLUMNS) is None
    assert fault_of(TABLE.head(0).astype(object), COLUMNS) is None  # without rows there are no types


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (TABLE.drop(columns="p"), "it has no column p"),
        (TABLE.head(0).drop(columns="label"), "it has no column label"),
        (TABLE.assign(layer=["0", "1"]), "its column layer does not hold whole numbers"),
        (TABLE.assign(layer=[0, math.nan]), "its column layer does not hold whole numbers"),
        (TABLE.assign(layer=[0, 0.5]), "its column layer does not hold whole numbers"),
        (TABLE.assign(count=[1, math.inf]), "its column count does not hold finite numbers"),
        (TABLE.assign(p=None), "its column p does not hold numbers"),
        (TABLE.assign(p=[0.5, -math.inf]), "its column p does not hold numbers"),
        (TABLE.assign(p="small"), "its column p does not hold numbers"),
        (TABLE.assign(p=[[1], [2]]), "its column p does not hold numbers"),
        (TABLE.assign(label=[1, 2]), "its column label does not hold text"),
        (TABLE.assign(label=["de", None]), "its column label does not hold text"),
        (TABLE.assign(null=1.0), "its column null does not hold lists"),
        (pd.concat([TABLE, TABLE]), "several rows have the same layer, label"),
    ],
)
def test_the_first_fault_is_told(changed, fault):
    assert fault_of(changed, COLUMNS) == fault


def test_the_names_that_are_experts_in_one_finding_are_domains_in_another():
    assert FINDING_COLUMNS["co_activation"]["first"] is Holds.PLACE
    assert FINDING_COLUMNS["distances"]["first"] is Holds.TEXT
