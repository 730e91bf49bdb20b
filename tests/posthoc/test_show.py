"""Tokens on a terminal: nothing that acts on it gets through, widths are right, all bytes are shown once."""

import io
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console

from moe_study.posthoc import show

HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def console(**settings: Any) -> Console:
    return Console(file=io.StringIO(), width=40, highlight=False, markup=False, emoji=False, **settings)


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
        ([b"\xff", b"a\xe6"], ["\ufffd", "a\ufffd"]),
        ([b"", "\xa0".encode()], ["…", " "]),
        (["\u3164a".encode(), "\uffa0".encode()], ["\\u3164a", "\\uffa0"]),
    ],
)
def test_what_is_seen_of_each_token(pieces: list[bytes], shown: list[str]) -> None:
    assert show.visible(pieces) == shown


def test_what_is_cut_out_around_a_token_ends_between_characters() -> None:
    text = "é漢 début è漢".encode()
    assert show.visible(show.whole(text[1:8], text[8:9], text[9:-2])) == ["漢 d", "é", "but è"]
    assert show.visible(show.whole(text[1:7], text[7:8], text[8:-1])) == ["漢 d", "…", "ébut è"]
    assert show.whole(b"", b"a", b"") == (b"", b"a", b"")


def test_rows_stand_in_columns_of_the_right_width_in_any_script() -> None:
    shown = ["Die", " Häuser", "漢字", " مرحبا", "हिन्दी", "❤\ufe0f", "👍🏽", "e", " x" * 20]
    marks = [("layer 0", [(f"{n},1", n) for n in range(len(shown))]), ("layer 11", [("-", None)] * len(shown))]
    lines = [line.plain for line in show.rows(shown, marks, 40, colours=False)]
    blocks = [lines[n : n + 4] for n in range(0, len(lines), 4)]
    assert len(blocks) > 1 and all(block[3] == "" for block in blocks)
    for head, first, second, _ in blocks:
        assert max(map(show.columns, (head, first, second))) <= 40 or head.split() == ["␣x" * 20]
        names = [place for place, character in enumerate(second) if character == "-"]  # a mark begins each column
        ahead = [show.columns(head[:place]) for place in range(len(head))]
        assert all(place in ahead for place in names)
    assert sum(line.count(",1") for line in lines) == len(shown)


def test_on_a_terminal_every_cell_begins_at_its_column_however_wide_the_one_before_is_taken_to_be() -> None:
    marks = [("layer 0", [("2,1", 2), ("0,1", 0), ("(3)", None)])]
    (head, row, _) = show.rows(["हिन्दी", "漢", "x"], marks, 40, colours=True)
    terminal = console(force_terminal=True, color_system="truecolor")
    terminal.print(head, row, crop=False)
    first, second = terminal.file.getvalue().splitlines()  # type: ignore[attr-defined]
    columns = [[int(number) - 1 for number in re.findall(r"\x1b\[(\d+)G", line)] for line in (first, second)]
    assert columns == [[8, 14, 18]] * 2  # हिन्दी takes 3 to 5 columns, by terminal
    assert head.plain.endswith("x") and "\x1b" not in head.plain


@pytest.mark.parametrize("settings", [{}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}])
def test_where_a_cursor_cannot_be_moved_there_are_blanks_alone(settings: dict[str, Any]) -> None:
    lines = list(show.rows(["漢", "x"], [("layer 0", [("2,1", 2), ("0,1", 0)])], 40, colours=False))
    plain = console(**settings)
    for line in lines:
        plain.print(line, crop=False)
    written = plain.file.getvalue()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in written.splitlines()] == ["        漢  x", "layer 0 2,1 0,1", ""]


def test_no_text_is_wider_than_it_is_counted() -> None:
    """What two terminals took it for: tmux 3.3 with glibc, and one that draws clusters (rich's own table)."""
    by_tmux = {"हिन्दी": 5, "👍🏽": 4, "❤\ufe0f": 1, "漢字": 4, "কা": 2, "\u3248": 2, "e\u0301": 1}
    for text, columns in by_tmux.items():
        assert max(columns, cell_len(text)) <= show.columns(text)


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


def test_more_experts_than_colours_have_numbers_too() -> None:
    few, many = (show.running_text(["x"] * count, range(count), colours=True).plain for count in (8, 9))
    assert few == "x" * 8 and many == "".join(f"[{expert}]x" for expert in range(9))


@pytest.mark.parametrize("system", [ColorSystem.EIGHT_BIT, ColorSystem.TRUECOLOR])
def test_as_many_experts_as_have_no_numbers_are_told_apart_by_their_colours(system: ColorSystem) -> None:
    grounds = [show.colour_of(expert).bgcolor for expert in range(show.MOST_COLOURS)]
    lab = [to_lab(ground.downgrade(system).get_truecolor()) for ground in grounds if ground is not None]
    distances = [math.dist(one, other) for one, other in itertools.combinations(lab, 2)]
    assert min(distances) > 10  # CIE 1976; about 2 can just be seen


def to_lab(colour: Iterable[int]) -> tuple[float, float, float]:
    """sRGB, 0 to 255, as CIE L*a*b* under D65."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in colour)]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, linear, strict=True)) for row in to_xyz]
    ratios = [value / white for value, white in zip(xyz, (0.9505, 1.0, 1.089), strict=True)]
    x, y, z = (r ** (1 / 3) if r > 0.008856 else 7.787 * r + 16 / 116 for r in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize(("system", "coloured"), [("standard", False), ("256", True), ("truecolor", True)])
def test_sixteen_colours_are_too_few(system: str, coloured: bool) -> None:
    """There every expert's colour came out as white."""
    assert show.has_colours(console(force_terminal=True, color_system=system)) is coloured


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
