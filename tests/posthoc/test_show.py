"""Tokens on a terminal: nothing that acts on it gets through, widths are right, all bytes are shown once."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from moe_study.posthoc import show

HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def console(**settings: object) -> Console:
    return Console(file=io.StringIO(), width=40, highlight=False, markup=False, emoji=False, **settings)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=6), max_size=8) | st.text().map(lambda text: [text[:2].encode("utf-8", "ignore")]))
def test_no_bytes_reach_a_terminal_as_anything_but_letters(pieces: list[bytes]) -> None:
    shown = show.visible(pieces)
    assert len(shown) == len(pieces)
    for token in shown:
        assert token and not any(unicodedata.category(character) in HARMFUL for character in token)
        assert cell_len(token) >= 1


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_letters_cut_into_bytes_are_shown_whole_with_the_byte_that_completes_them(text: str) -> None:
    pieces = [bytes([byte]) for byte in text.encode()]
    shown = show.visible(pieces)
    assert sum(token != show.UNFINISHED for token in shown) >= len([c for c in text if c != show.UNFINISHED])


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"The", b" house"], ["The", " house"]),
        (["漢".encode()[:2], "漢".encode()[2:], b"!"], ["…", "漢", "!"]),
        ([b"\x1b[31m", b"\n", b"\t", b"\x00"], ["\\x1b[31m", "↵", "⇥", "\\x00"]),
        (["\u202e".encode(), "\u2066a".encode(), "\ufeff".encode()], ["\\u202e", "\\u2066a", "\\ufeff"]),
        ([b"e", "\u0301".encode()], ["e", "◌\u0301"]),
        ([b"\xff", b"a\xe6"], ["\ufffd", "\ufffd"]),
        ([b"", "\xa0".encode()], ["…", " "]),
    ],
)
def test_what_is_seen_of_each_token(pieces: list[bytes], shown: list[str]) -> None:
    assert show.visible(pieces) == shown


def test_rows_stand_in_columns_of_the_right_width_in_any_script() -> None:
    shown = ["Die", " Häuser", "漢字", " مرحبا", "क्षि", "e", " x" * 20]
    marks = [("layer 0", [(f"{n},1", n) for n in range(len(shown))]), ("layer 11", [("-", None)] * len(shown))]
    lines = [line.plain for line in show.rows(shown, marks, 40, colours=False)]
    blocks = [lines[n : n + 4] for n in range(0, len(lines), 4)]
    assert len(blocks) > 1 and all(block[3] == "" for block in blocks)
    for head, first, second, _ in blocks:
        assert cell_len(head) == cell_len(first) == cell_len(second)
        assert cell_len(head) <= 40 or head.split() == ["␣x" * 20]
    assert sum(line.count(",1") for line in lines) == len(shown)


def test_a_table_with_right_to_left_letters_keeps_its_columns_in_order() -> None:
    assert show.in_cell(" مر").endswith("\u200e") and not show.in_cell(" ab").endswith("\u200e")


def test_running_text_has_marks_where_there_are_no_colours() -> None:
    text = show.running_text(["The", " house", " of", "↵", "it"], [0, 0, 12, None, None], colours=False)
    assert text.plain == "[0]The house[12] of[-]↵\nit"


def test_running_text_has_colours_on_a_terminal_and_the_text_is_not_changed() -> None:
    terminal = console(force_terminal=True, color_system="truecolor")
    assert show.has_colours(terminal)
    text = show.running_text(["[red]The", " house"], [0, 1], colours=True)
    assert text.plain == "[red]The house" and len({str(span.style) for span in text.spans}) == 2
    terminal.print(text)
    assert "\x1b[38;2;0;0;0;48;2;" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_a_pipe_and_no_color_get_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not show.has_colours(console())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not show.has_colours(console(force_terminal=True))


def test_black_letters_are_legible_on_every_experts_colour() -> None:
    for expert in range(64):
        ground = show.colour_of(expert).bgcolor
        assert ground is not None and ground.triplet is not None
        parts = [value / 255 for value in ground.triplet]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert (luminance + 0.05) / 0.05 >= 7  # WCAG 2.1, level AAA
