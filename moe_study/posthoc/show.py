"""Tokens on a terminal: bytes as safe text of known width, and a colour for each expert.

Text of others can hold anything: control characters that move the cursor, marks that turn the direction of a line,
halves of characters. Nothing of that reaches the terminal; each is shown by a mark or by its number.
"""

import codecs
import colorsys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

UNFINISHED = "…"  # a token that ends inside a character, which is shown with the token that completes it
BLANK, LINE_END, TAB = "␣", "↵", "⇥"
MOST_COLOURS = 8  # experts that are told apart by colour alone, in 256 colours too
_HARMFUL = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_UNSEEN = set("\u115f\u1160\u3164\uffa0")  # letters that fill a place and have no form: Hangul fillers
_LEFT_TO_RIGHT = "\u200e"  # after a cell of Arabic or Hebrew: the columns of a table stay in their order


def visible(pieces: Iterable[bytes]) -> list[str]:
    """One string for each token, without anything that a terminal acts on; never empty."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = [safe(decoder.decode(piece)) or UNFINISHED for piece in pieces]
    if shown and decoder.decode(b"", final=True):
        shown[-1] = shown[-1].removesuffix(UNFINISHED) + "\ufffd"
    return shown


def whole(before: bytes, token: bytes, after: bytes) -> tuple[bytes, bytes, bytes]:
    """A token and what was cut out around it, without the halves of characters at the two ends."""
    begun = before.lstrip(bytes(range(0x80, 0xC0))) if len(before) > 3 else before  # bytes that go on with a character
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(begun + token + after)
    return begun, token, after[: max(0, len(after) - len(decoder.getstate()[0]))]


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
    if category in _HARMFUL or character in _UNSEEN:
        return character.encode("unicode_escape").decode() if category != "Cs" else f"\\u{ord(character):04x}"
    return " " if category == "Zs" else character


def in_cell(shown: str) -> str:
    """A token as a cell of a row: blanks are seen, and right-to-left letters leave the other cells alone."""
    cell = shown.replace(" ", BLANK)
    turned = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in cell)
    return cell + _LEFT_TO_RIGHT if turned else cell


def columns(text: str) -> int:
    """The columns of a terminal that `text` takes at most: terminals differ over vowel signs and parts of emoji."""
    return sum(max(cell_len(character), _most_columns(character)) for character in text)


def _most_columns(character: str) -> int:
    if "\U0001f3fb" <= character <= "\U0001f3ff" or "\u3248" <= character <= "\u324f":
        return 2  # skin tones, circled numbers
    return 1 if unicodedata.category(character) == "Mc" or character == "\ufe0f" else 0


def has_colours(console: Console) -> bool:
    """Whether experts can be told apart by colour: the 16 colours of a plain terminal are too few for that."""
    return console.is_terminal and console.color_system in ("256", "truecolor") and not console.no_color


def colour_of(expert: int) -> Style:
    """Dark letters on a light ground, legible whatever the terminal's own colours; neighbours differ in hue."""
    red, green, blue = colorsys.hls_to_rgb((0.08 + expert * 0.618034) % 1, 0.72 if expert % 2 else 0.82, 0.6)
    ground = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    return Style(color="#000000", bgcolor=ground)


def running_text(shown: Sequence[str], experts: Sequence[int | None], colours: bool) -> Text:
    """Tokens one after another, each in its expert's colour, and with [expert] where another one takes over if there
    are no colours or more experts than those can tell apart."""
    text, before = Text(), object()
    marks = not colours or len({expert for expert in experts if expert is not None}) > MOST_COLOURS
    for token, expert in zip(shown, experts, strict=True):
        if marks and expert != before:
            text.append("[-]" if expert is None else f"[{expert}]")
        text.append(token, colour_of(expert) if colours and expert is not None else None)
        if token.endswith(LINE_END):
            text.append("\n")
        before = expert
    return text


@dataclass(frozen=True)
class Cell:
    """Text at a column of its row, filled up with blanks."""

    column: int
    text: str
    size: int
    style: Style | None = None

    @property
    def filled(self) -> str:
        return self.text + " " * (self.size - columns(self.text))


@dataclass(frozen=True)
class Row:
    """Cells of one line. On a terminal each begins at its column, however wide it took the ones before to be."""

    cells: Sequence[Cell]

    @property
    def plain(self) -> str:
        """As it stands in a file."""
        return " ".join(cell.filled for cell in self.cells).rstrip()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        moves = console.is_terminal and not console.is_dumb_terminal
        for cell in self.cells:
            if cell is not self.cells[0]:
                yield Control.move_to_column(cell.column).segment if moves else Segment(" ")
            yield Segment(cell.filled, cell.style)
        yield Segment.line()


def rows(
    shown: Sequence[str], layers: Sequence[tuple[str, Sequence[tuple[str, int | None]]]], width: int, colours: bool
) -> Iterator[Row]:
    """Tokens in columns, as many as `width` takes, over one row for each layer: (name, cell and expert by token)."""
    first = max([len(name) for name, _ in layers], default=0)
    cells = [in_cell(token) for token in shown]
    widths = [
        max(columns(cell), *(len(marks[place][0]) for _, marks in layers)) if layers else columns(cell)
        for place, cell in enumerate(cells)
    ]
    for start, end in _blocks(widths, width - first - 1):
        yield _row("", first, [(cells[n], None, widths[n]) for n in range(start, end)])
        for name, marks in layers:
            row = [(*marks[n], widths[n]) for n in range(start, end)]
            yield _row(name, first, row if colours else [(mark, None, size) for mark, _, size in row])
        yield Row([])


def _row(name: str, first: int, marks: Iterable[tuple[str, int | None, int]]) -> Row:
    cells = [Cell(0, name, first)]
    for text, expert, size in marks:
        column = cells[-1].column + cells[-1].size + 1
        cells.append(Cell(column, text, size, None if expert is None else colour_of(expert)))
    return Row(cells)


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
