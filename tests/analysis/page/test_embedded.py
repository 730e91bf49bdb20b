import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_study.analysis.page.embedded import as_json, columns, numbers, visible

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [("\x00", "␀"), ("\x1b[31m", "␛[31m"), ("\u202eabc", "⟨U+202E⟩abc"), ("\ud800", "⟨U+D800⟩"), ("\x7f", "⟨U+007F⟩")],
)
def test_what_nobody_sees_stands_by_its_name(hidden: str, shown: str) -> None:
    assert visible(hidden) == shown
    assert json.loads(as_json(hidden)) == shown


def test_letters_of_all_scripts_tabs_and_line_ends_stay_as_they_are() -> None:
    text = "naïve\tשלום\n漢字 👩‍🔬 \\u0000 \\ \" '"
    assert visible(text) == text
    assert json.loads(as_json({"a": text})) == {"a": text}


@given(ANY_TEXT)
def test_json_holds_no_sign_of_markup_and_reads_back_as_what_is_visible(text: str) -> None:
    written = as_json([text])
    assert written.isascii() and not set("<>&") & set(written)
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # halves that stand together
    assert json.loads(written) == [visible(joined)]
    visible(text).encode()  # can be written


def test_numbers_keep_five_digits_and_whole_ones_all_of_theirs() -> None:
    assert numbers([1.23456789, 500_224, math.nan, math.inf, 0.0]) == [1.2346, 500_224, None, None, 0]


def test_a_frame_by_column_can_be_read_back() -> None:
    frame = pd.DataFrame({"x": [1.5, math.nan], "name": ["b", "b"], "on": [True, False], "gone": [None, "c"]})
    found = columns(frame)
    assert found["rows"] == 2
    assert found["columns"]["x"] == [1.5, None]
    assert found["columns"]["name"] == {"of": ["b"], "at": [0, 0]}
    assert found["columns"]["on"] == {"of": [True, False], "at": [0, 1]}
    assert found["columns"]["gone"] == {"of": ["c"], "at": [-1, 0]}
