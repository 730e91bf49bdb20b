import pandas as pd

from moe_study.analysis.page.tables import points_table, table_of_cells, table_of_frame, tables_of
from moe_study.analysis.study import read_study
from moe_study.analysis.tables_out import Cells
from tests.analysis import planted


def test_a_number_and_the_ends_of_its_interval_become_one_column() -> None:
    frame = pd.DataFrame({"point": ["a"], "loss": [4.1], "loss_low": [4.0], "loss_high": [4.25], "n": [3]})
    table = table_of_frame(frame, "x", "X")
    assert [column.name for column in table.columns] == ["point", "loss", "n"]
    assert [cell.text for cell in table.rows[0]] == ["a", "4.1000 (4 to 4.2500)", "3"]


def test_plain_low_and_high_belong_to_the_column_before_them() -> None:
    frame = pd.DataFrame({"mean": [0.5, None], "low": [0.4, None], "high": [0.6, None]})
    table = table_of_frame(frame, "x", "X")
    assert [cell.text for (cell,) in table.rows] == ["0.5000 (0.4000 to 0.6000)", "–"]
    assert [cell.key for (cell,) in table.rows] == ["0.5", ""]


def test_cells_of_a_file_are_sorted_by_the_number_that_they_show() -> None:
    cells = Cells(["point", "score"], [["a †", "0.31 ± 0.02"], ["b", "–"], ["c", "-1"]], ["how to read it"])
    table = table_of_cells(cells, "x", "X")
    assert [row[1].value for row in table.rows] == [0.31, None, -1]
    assert [row[0].value for row in table.rows] == ["a †", "b", "c"]
    assert table.notes == ["how to read it"]


def test_labels_carry_their_marks_in_any_table() -> None:
    frame = pd.DataFrame({"point": ["a", "b"], "yes": [True, False]})
    table = table_of_frame(frame, "x", "X", marks={"a": "†"})
    assert [[cell.text for cell in row] for row in table.rows] == [["a †", "yes"], ["b", "no"]]


def test_every_cell_of_the_points_sorts_by_the_number_that_it_shows(tmp_path) -> None:
    planted.plant(tmp_path)
    (part,) = read_study([tmp_path]).parts
    table = points_table(part, "p-")
    by_name = {column.name: place for place, column in enumerate(table.columns)}
    for row, own in zip(table.rows, part.table.itertuples(), strict=True):
        assert row[by_name["loss"]].text == f"{row[by_name['loss']].value:.4f}" == f"{own.loss:.4f}"
        assert row[by_name["params"]].value == own.num_params
        assert row[by_name["point"]].text.startswith(own.label)
        shown = row[by_name[next(name for name in by_name if name.startswith("Δ"))]]
        assert shown.value is None if own.label == part.reference else shown.text.startswith(f"{own.difference:+.4f}")


def test_a_leaking_point_is_marked_wherever_a_table_names_it(tmp_path) -> None:
    planted.plant(tmp_path, seeds=(0, 1, 2))
    (part,) = read_study([tmp_path], rank_leaking=True).parts
    (leaking,) = part.leaking
    named = [
        cell.text for table in tables_of(part, "p-") for row in table.rows for cell in row if leaking in cell.text
    ]
    assert len(named) > 5
    assert all(f"{leaking} †" in text for text in named)
