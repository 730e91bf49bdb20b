"""Tokens on a terminal: bytes as safe text of known width, and a colour for each expert.

Text of others can hold anything: control characters that move the cursor, marks that turn the direction of a line,
halves of characters. Nothing of that reaches the terminal; each is shown by a mark or by its number.
"""

import codecs
import colorsys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

UNFINISHED = "…"  # a token that ends inside a character, which is shown with the token that completes it
BLANK, LINE_END, TAB = "␣", "↵", "⇥"
_HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_LEFT_TO_RIGHT = "\u200e"  # after a cell of Arabic or Hebrew: the columns of a table stay in their order


def visible(pieces: Iterable[bytes]) -> list[str]:
    """One string for each token, without anything that a terminal acts on; never empty."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = [safe(decoder.decode(piece)) or UNFINISHED for piece in pieces]
    if shown and decoder.decode(b"", final=True):
        shown[-1] = "\ufffd"
    return shown


def safe(text: str) -> str:
    """`text` with harmful characters as escapes such as \\x1b, and a base under a combining mark that lacks one."""
    base = "◌" if text and unicodedata.category(text[0]) in ("Mn", "Mc", "Me") else ""
    return base + "".join(_safe(character) for character in text)


def _safe(character: str) -> str:
    if character == "\n":
        return LINE_END
    if character == "\t":
        return TAB
    category = unicodedata.category(character)
    if category in _HARMFUL:
        return character.encode("unicode_escape").decode() if category != "Cs" else f"\\u{ord(character):04x}"
    return " " if category == "Zs" else character


def in_cell(shown: str) -> str:
    """A token as a cell of a row: blanks are seen, and right-to-left letters leave the other cells alone."""
    cell = shown.replace(" ", BLANK)
    turned = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in cell)
    return cell + _LEFT_TO_RIGHT if turned else cell


def has_colours(console: Console) -> bool:
    return console.is_terminal and console.color_system is not None and not console.no_color


def colour_of(expert: int) -> Style:
    """Dark letters on a light ground, legible whatever the terminal's own colours; neighbours differ in hue."""
    red, green, blue = colorsys.hls_to_rgb((0.08 + expert * 0.618034) % 1, 0.72 if expert % 2 else 0.82, 0.6)
    ground = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    return Style(color="#000000", bgcolor=ground)


def running_text(shown: Sequence[str], experts: Sequence[int | None], colours: bool) -> Text:
    """Tokens one after another, each in its expert's colour, or with [expert] where another one takes over."""
    text, before = Text(), object()
    for token, expert in zip(shown, experts, strict=True):
        if not colours and expert != before:
            text.append("[-]" if expert is None else f"[{expert}]")
        text.append(token, colour_of(expert) if colours and expert is not None else None)
        if token.endswith(LINE_END):
            text.append("\n")
        before = expert
    return text


def rows(
    shown: Sequence[str], layers: Sequence[tuple[str, Sequence[tuple[str, int | None]]]], width: int, colours: bool
) -> Iterator[Text]:
    """Tokens in columns, as many as `width` takes, over one row for each layer: (name, cell and expert by token)."""
    first = max([cell_len(name) for name, _ in layers], default=0)
    cells = [in_cell(token) for token in shown]
    widths = [
        max(cell_len(cell), *(len(marks[place][0]) for _, marks in layers)) if layers else cell_len(cell)
        for place, cell in enumerate(cells)
    ]
    for start, end in _blocks(widths, width - first - 1):
        yield _row("", first, [(cells[n], None, widths[n]) for n in range(start, end)])
        for name, marks in layers:
            row = [(*marks[n], widths[n]) for n in range(start, end)]
            yield _row(name, first, row if colours else [(mark, None, size) for mark, _, size in row])
        yield Text()


def _row(name: str, first: int, cells: Iterable[tuple[str, int | None, int]]) -> Text:
    text = Text(name + " " * (first - cell_len(name)))
    for cell, expert, size in cells:
        text.append(" ")
        text.append(cell + " " * (size - cell_len(cell)), None if expert is None else colour_of(expert))
    return text


def _blocks(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Runs of columns that fit, at least one each."""
    start = used = 0
    for place, size in enumerate(widths):
        if place > start and used + size + 1 > room:
            yield start, place
            start, used = place, 0
        used += size + 1
    if widths:
        yield start, len(widths)
