"""routing.parquet: written whole, read with its columns, or refused by name."""

import pandas as pd
import pytest

from moe_study.errors import DataError
from moe_study.runs.activations import COLUMNS
from moe_study.runs.folder import RunFolder

COUNTS = pd.DataFrame([[0, 1, "en", "news", 3, 1.5, 7]], columns=list(COLUMNS))


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "0123456789abcdef")


def test_what_is_written_is_read_and_other_columns_are_left_out(folder):
    assert folder.read_activations() is None
    folder.write_activations(COUNTS.assign(more=1)[["more", *reversed(COLUMNS)]])
    pd.testing.assert_frame_equal(folder.read_activations(), COUNTS)
    folder.write_activations(COUNTS.iloc[:0])  # a run without a router
    assert len(folder.read_activations()) == 0


@pytest.mark.parametrize("damage", ["text", "column"])
def test_a_damaged_file_is_named_with_what_to_do(folder, damage):
    folder.path.mkdir()
    if damage == "text":
        folder.routing_file.write_text("not parquet")
    else:
        COUNTS.drop(columns="weight").to_parquet(folder.routing_file)
    with pytest.raises(
        DataError, match=r"routing\.parquet is damaged: it .*; remove the run \(moe-study remove .*--results\)"
    ):
        folder.read_activations()
