"""metrics.jsonl as a table: what it says read record by record, damage included."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moe_study.errors import StudyError
from moe_study.runs import curve

LOSSES = ["kind", "step", "tokens", "loss", "seconds"]
SHARES = ["step", "layer", "share", "entropy", "kept_per_token"]
TRAIN = {"kind": "train", "step": 10, "tokens": 5120, "loss": 6.347124671936035, "aux": {"z": 0.1}, "seconds": 1e-05}
ROUTING = {"kind": "routing", "step": 10, "layer": 1, "share": [0.1, 0.9], "entropy": None, "kept_per_token": 2.0}
VALIDATION = {"kind": "validation", "step": 10, "tokens": 5120, "loss": None, "seconds": 0.1 + 0.2}


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


PLAIN = lines(TRAIN, ROUTING, VALIDATION, TRAIN | {"step": 20})
WRITTEN = {
    "what is written": PLAIN,
    "an unfinished last line": PLAIN + '{"kind": "train", "st',
    "a whole last line without its end": PLAIN + json.dumps(TRAIN),
    "no routing": lines(TRAIN, VALIDATION),
    "not a record yet": "",
    "a field of a later version": lines(TRAIN | {"new": [{"a": 1}]}, ROUTING),
    "a field that is missing": lines({"kind": "train", "step": 3}, {"kind": "routing", "step": 3, "share": [1.0]}),
    "a whole number for a loss": lines(TRAIN | {"loss": 4}, TRAIN),
    "a fraction for a step": lines(TRAIN | {"step": 4.5}),
    "letters beyond ASCII": '{"kind": "train", "step": 1, "loss": 2.0, "note": "é\u2028"}\n',
    "nan, which JSON does not know": PLAIN + '{"kind": "train", "step": 30, "loss": NaN}\n',
    "Windows' line ends": PLAIN.replace("\n", "\r\n"),
    "more than Arrow reads at a time": lines(*(TRAIN | {"step": step, "loss": step / 3} for step in range(9000))),
}
DAMAGED = {
    "two records in a line": lines(TRAIN)[:-1] + lines(ROUTING, TRAIN),
    "an empty line": lines(TRAIN) + "\n" + lines(TRAIN),
    "a record over two lines": lines(TRAIN).replace('"loss"', '\n"loss"'),
    "no step": lines({"kind": "train", "loss": 1.0}),
    "no kind": lines({"step": 3}),
    "a list": lines(TRAIN, [1, 2]),
    "no JSON": lines(TRAIN) + "nonsense\n" + lines(TRAIN),
    "no JSON in a field that is not read": lines(TRAIN).replace('{"z": 0.1}', "{0.1}"),
}


def by_record(path: Path, kinds: tuple[str, ...], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame([record for record in curve.read(path) if record["kind"] in kinds], columns=columns)


def unfolded(table: pd.DataFrame) -> list[list[Any]]:
    """Plain values, None for whatever is null."""

    def plain(value: Any) -> Any:
        return list(value) if np.ndim(value) else None if pd.isna(value) else value

    return [[plain(value) for value in row] for row in table.itertuples(index=False)]


@pytest.mark.parametrize(("kinds", "columns"), [(("train", "validation"), LOSSES), (("routing",), SHARES)])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_says_what_its_records_say(
    name: str, kinds: tuple[str, ...], columns: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(WRITTEN[name], encoding="utf-8", newline="")
    table = curve.read_table(path, kinds, columns)
    assert list(table.columns) == columns
    assert unfolded(table) == unfolded(by_record(path, kinds, columns))


def test_what_is_written_is_not_read_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve.append(tmp_path / "metrics.jsonl", TRAIN, ROUTING, VALIDATION)
    monkeypatch.delattr(curve, "read")
    assert len(curve.read_table(tmp_path / "metrics.jsonl", ("train", "validation"), LOSSES)) == 2
    assert len(curve.read_table(tmp_path / "metrics.jsonl", ("routing",), SHARES)) == 1


def test_losses_have_every_digit_and_whole_numbers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(PLAIN, encoding="utf-8")
    table = curve.read_table(path, ("train", "validation"), LOSSES)
    assert table["loss"].iloc[0] == TRAIN["loss"] and table["seconds"].tolist() == [1e-05, 0.1 + 0.2, 1e-05]
    assert table[["step", "tokens"]].dtypes.eq("int64").all() and table[["loss", "seconds"]].dtypes.eq("float64").all()


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_said_in_the_same_words(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(DAMAGED[name], encoding="utf-8")
    with pytest.raises(StudyError, match=r"metrics\.jsonl is damaged at line \d") as expected:
        curve.read(path)
    with pytest.raises(StudyError) as found:
        curve.read_table(path, ("train",), LOSSES)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("loss", ['"y"', "[1.0]", '{"a": 1}'])
def test_a_loss_that_is_no_number_is_damage(loss: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(PLAIN + f'{{"kind": "train", "step": 9, "tokens": 9, "loss": {loss}, "seconds": 1}}\n')
    with pytest.raises(StudyError, match=r"metrics\.jsonl is damaged: a record's loss is"):
        curve.read_table(path, ("train",), LOSSES)


def test_a_file_that_is_no_text_is_said_and_one_that_is_not_there_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert curve.read_table(path, ("train",), LOSSES).empty
    path.write_bytes(PLAIN.encode() + b"\xff\n")
    with pytest.raises(StudyError, match=r"metrics\.jsonl cannot be read"):
        curve.read_table(path, ("train",), LOSSES)
