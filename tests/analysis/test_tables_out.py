import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis import report
from moe_study.analysis.frame import load_frame
from moe_study.analysis.study import study_of
from moe_study.analysis.table_text import marks_by_label, table_cells
from moe_study.analysis.tables_out import FORMATS, Cells, cells_of, latex, latex_text, markdown, to_csv, write_table
from tests.analysis import planted

HOSTILE = [
    "100% of a_b & c#d $x$ {y} \\z ~ ^",
    "[2pt] *",
    '<script>"a" | `b`',
    "two\nlines\x00\t",
    "École Łódź ß œuvre ñ İ",
    "中文 кот \u202eabc \U0001f600 \ud800",
    "a -- b --- c -1",
    "†‡§ ×/÷ ± Δ – — ≤",
    "",
]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Points that leak, that lack a seed, that have no result, and runs of all kinds that failed."""
    root = tmp_path_factory.mktemp("runs")
    folders = planted.plant(root, seeds=(0, 1, 2))
    error = {"type": "DataError", "message": "no shard_1 & 2", "traceback": ""}
    for folder in (folders[4], *folders[12:15]):
        planted.set_status(folder, "failed", error, 12)
    return study_of(load_frame([root])).parts[0]


def unescaped(text: str) -> str:
    """`text` without what is a letter in LaTeX: what is left of its special characters acts."""
    return re.sub(r"\\([%&#_${}])", "", text)


def rows_of(text: str) -> list[list[str]]:
    """Cells of a LaTeX table's rows."""
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]
    return [re.split(r"(?<!\\) ?& ?", line) for line in lines]


def test_all_formats_hold_the_same_rows(part, tmp_path):
    cells = table_cells(part.table)
    written = write_table(tmp_path, "table", part.table, cells)
    assert [path.suffix for path in written] == [f".{kind}" for kind in FORMATS]
    read = pd.read_csv(tmp_path / "table.csv"), pd.read_parquet(tmp_path / "table.parquet")
    for frame in read:
        assert list(frame["label"]) == list(part.table["label"])
        np.testing.assert_array_equal(frame["loss"], part.table["loss"])  # all digits
    assert read[1].attrs["notes"] == cells.notes and read[1].attrs["reference"] == part.reference
    assert str(read[1]["pairs"].dtype) == "Int64"
    points = [row.split(" | ")[0].removeprefix("| ") for row in markdown(cells).splitlines()[2 : 2 + len(cells.rows)]]
    assert points == [row[0] for row in cells.rows]
    assert [row[0] for row in rows_of(latex(cells))[1:]] == [latex_text(point) for point in points]


def test_marks_and_absent_runs_stand_in_every_format_of_every_table(part):
    part = study_of(part.frame, rank_leaking=True).parts[0]  # so that the leaking point is compared, too
    absent = [run.sentence for run in part.absent]
    assert len(absent) == 4
    names = []
    for name, frame, cells in report.tables(part, absent):
        names.append(name)
        readable, set_in_tex = markdown(cells), latex(cells)
        kept = pd.read_parquet(io.BytesIO(FORMATS["parquet"](frame, cells)))
        assert list(kept) == list(frame) and len(kept) == len(frame) and kept.attrs["notes"][-4:] == absent
        for sentence in absent:
            assert sentence in frame.to_csv() and sentence in readable and latex_text(sentence) in set_in_tex
        assert "sequence top-2 †" in readable and r"sequence top-2 \textdagger{}" in set_in_tex
        assert "token top-1" not in part.leaking and not re.search(r"token top-1[^|§]*†", readable)
        assert "† routing reads later tokens" in readable and r"\textdagger{} routing reads" in set_in_tex
        assert "dense 2x §" in readable and r"dense 2x \S{}" in set_in_tex
    assert names == ["table", "comparisons", "equal_cost", "pareto", "power"]
    assert marks_by_label(part.table) == {"dense 2x": "§", "sequence top-2": "†"}


def test_a_rule_stands_where_another_standing_begins(part):
    cells = table_cells(part.table)
    standings = list(part.table["standing"])
    assert [standings[place - 1] != standings[place] for place in sorted(cells.rules)] == [True] * 3
    assert latex(cells).count(r"\midrule") == 1 + 3


def test_any_frame_becomes_cells():
    frame = pd.DataFrame(
        {
            "label": ["a", "b", None],
            "effect": [0.123456, np.nan, -2e-7],
            "flops": [96296.0, -1.5e12, 9999.0],
            "seeds_needed": pd.array([3, None, 12345], "Int64"),
            "leaks": [True, np.bool_(False), None],
            "on_front": [True, False, True],
            "sentence": ["x"] * 3,
        }
    )
    cells = cells_of(frame, marks={"a": "†"}, notes=["note"])
    assert cells.header == ["label", "effect", "flops", "seeds needed", "leaks", "on front"]
    assert cells.rows == [
        ["a †", "0.1235", "96.3k", "3", "yes", "yes"],
        ["b", "–", "-1.5T", "–", "no", "no"],
        ["–", "-2e-07", "9999", "12345", "–", "yes"],
    ]
    assert list(cells.text_columns) == [0, 4, 5]
    assert cells_of(frame, columns=["seeds_needed", "gone", "label"]).header == ["seeds needed", "label"]
    assert cells_of(frame.head(0)).rows == []


def test_no_letter_of_a_cell_acts_in_latex():
    text = latex(Cells([f"h{n}" for n in range(2)], [[cell, cell] for cell in HOSTILE], HOSTILE))
    body = unescaped(text.split(r"\toprule")[1].split(r"\bottomrule")[0])
    assert body.count("&") == 1 + len(HOSTILE) and not re.search(r"[%#_]|(?<!\\)[\^~]", body)
    assert all(len(row) == 2 for row in rows_of(text)) and len(rows_of(text)) == 1 + len(HOSTILE)
    assert not re.search(r"\\\\\s*\n\s*[\[*]", text), "a row begins with an option of the row before"
    assert "\x00" not in text and "$-$1" in text and "-{}-{}- c" in text
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert text.encode()


def test_letters_with_accents_are_set_and_others_have_a_code_point():
    assert latex_text("Éi\u0301çñ") == r"\'{E}\'{\i}\c{c}\~{n}"
    assert latex_text("中") == r"\orcodepoint{中}{[U+4E2D]}"
    assert latex_text("top-2") == "top-2"


def test_no_cell_breaks_a_row_of_markdown_or_csv():
    rows = [[cell, "end"] for cell in HOSTILE]
    lines = markdown(Cells(["a", "b"], rows)).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines[: 2 + len(rows)])
    assert all(line.endswith(" | end |") for line in lines[2 : 2 + len(rows)])
    assert not re.search(r"(?<!\\)<script>", "".join(lines))
    frame = pd.DataFrame(rows[:5], columns=["a", "b"])
    assert list(csv.reader(io.StringIO(FORMATS["csv"](frame, Cells([], [])).decode())))[1:] == rows[:5]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")
def test_pdflatex_sets_every_table(part, tmp_path):
    cells = [shown for _, _, shown in report.tables(part, HOSTILE)]
    cells.append(Cells(["h"] * 2, [[cell, cell] for cell in HOSTILE], HOSTILE, rules=(1,)))
    for place, shown in enumerate(cells):
        (tmp_path / f"t{place}.tex").write_text(latex(shown), encoding="utf-8")
    inputs = "\n\n".join(rf"\input{{t{place}.tex}}" for place in range(len(cells)))
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Missing character" not in done.stdout


def test_a_csv_gives_every_number_back_whatever_pandas_itself_would_write(monkeypatch):
    numbers = np.random.default_rng(0).standard_normal(200) * 10.0 ** np.arange(-100, 100)
    frame = pd.DataFrame({"value": [*numbers, np.nan, np.inf, 1.0], "count": range(203)})
    written = pd.DataFrame.to_csv

    def without_the_last_digits(self, *arguments, **settings):
        settings["float_format"] = settings.get("float_format") or "%.15g"
        return written(self, *arguments, **settings)

    monkeypatch.setattr(pd.DataFrame, "to_csv", without_the_last_digits)
    lines = to_csv(frame).decode().splitlines()[1:]
    read = [float(line.partition(",")[0] or "nan") for line in lines]
    np.testing.assert_array_equal(read, frame["value"])
    assert lines[-1] == "1.0,202"
