"""Scores in a run's folder: whole ones come back, damaged ones are left out and told."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moe_study.runs.folder import RunFolder
from moe_study.runs.scores import all_scores, find_score, score_identity, write_score

METRIC = {"value": 0.5, "stderr": None, "higher_is_better": None, "is_mean": True}
FACTS = {"task": "cloze", "items": 2, "chance": 0.25, "passes": "", "metrics": {"acc": METRIC}}
TABLE = pd.DataFrame({"item": ["a", "b"], "metric": "acc", "value": [0.0, 1.0], "weight": np.nan})


def keep(folder: RunFolder, table: pd.DataFrame, facts: dict[str, Any]) -> Any:
    identity = score_identity(folder, "weights", "cloze", "f" * 32)
    write_score(folder, identity, table, facts)
    return identity


def test_a_whole_score_comes_back(tmp_path):
    folder, problems = RunFolder(tmp_path), []
    identity = keep(folder, TABLE, FACTS)
    (found,) = all_scores(folder, problems)
    assert found.facts == FACTS and problems == [] and find_score(folder, identity, {}) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"task": None}, {"items": "2"}, {"chance": "a quarter"}, {"passes": None}, {"metrics": ["acc"]}),
        *({"metrics": {"acc": 0.5}}, {"metrics": {"acc": {**METRIC, "value": None}}}, {"metrics": {"acc": {}}}),
    ],
)
def test_a_score_without_its_facts_is_asked_for_again_and_told(tmp_path, wrong):
    folder, problems = RunFolder(tmp_path), []
    identity = keep(folder, TABLE, {**FACTS, **wrong})
    assert list(all_scores(folder, problems)) == [] and find_score(folder, identity, {}) is None
    assert len(problems) == 1 and "score the run again" in problems[0]


def test_answers_of_another_type_are_told(tmp_path):
    folder, problems = RunFolder(tmp_path), []
    keep(folder, TABLE.assign(value="yes"), FACTS)
    assert list(all_scores(folder, problems)) == [] and "its column value does not hold numbers" in problems[0]
