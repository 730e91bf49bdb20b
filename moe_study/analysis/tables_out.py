r"""Tables as files: CSV and Parquet with every column and digit, Markdown and LaTeX as people read them.

    write_table(out, "effects", frame, cells_of(frame, marks=marks_by_label(part.table), notes=absent))

writes effects.csv, effects.parquet, effects.md and effects.tex. What a reader must know of a row (its routing reads
later tokens, it lacks seeds, runs of it have no result) stands in columns of the first two, and as marks and notes in
the last two. A LaTeX file is to be read by \input in a document with \usepackage{booktabs}.
"""

import io
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.format import NOTHING, aligned, count
from moe_study.files import write_bytes_atomic

IN_WORDS = ("sentence", "absent", "absent_states", "absent_reasons")  # columns too wide for people's tables


@dataclass(frozen=True)
class Cells:
    """A table as people read it: every cell a text."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)  # a line each, beneath the table
    text_columns: Collection[int] = (0,)  # set to the left; all others to the right
    rules: Collection[int] = ()  # rows that begin a new group


def cells_of(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    marks: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Cells:
    """Any frame as people read it; numbers have four digits, large ones three and a letter.

    `columns` in their order; by default all but IN_WORDS. A cell that is a label in `marks` gets its mark (see
    table_text.marks_by_label).
    """
    marks = marks or {}
    chosen = [c for c in frame if c not in IN_WORDS] if columns is None else [c for c in columns if c in frame]
    shown = frame[chosen]
    rows = [[_cell(value, marks) for value in row] for row in shown.itertuples(index=False, name=None)]
    texts = [place for place, name in enumerate(chosen) if not _is_number(shown[name])]
    return Cells([str(name).replace("_", " ") for name in chosen], rows, list(notes), texts)


def _is_number(values: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _cell(value: Any, marks: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return f"{value} {marks.get(value, '')}".strip() or NOTHING
    if value is None or value is pd.NA or (isinstance(value, Real) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's own, too
        return "yes" if value else "no"
    if isinstance(value, Integral) or not isinstance(value, Real):
        return str(value)
    plain = float(value)
    return f"{plain:.4g}" if abs(plain) < 1e4 else f"{'-' if plain < 0 else ''}{count(abs(plain))}"


def write_table(out: Path, name: str, frame: pd.DataFrame, cells: Cells) -> list[Path]:
    """`name` in every format, each file whole or not at all; what was written."""
    written = [out / f"{name}.{kind}" for kind in FORMATS]
    for path, form in zip(written, FORMATS.values(), strict=True):
        write_bytes_atomic(path, form(frame, cells))
    return written


# One function for each format ----------------------------------------------------------------------------------


def to_csv(frame: pd.DataFrame, cells: Cells | None = None) -> bytes:
    """Every column, all digits."""
    return csv_text(frame).encode()


def csv_text(frame: pd.DataFrame) -> str:
    """The columns without the index, each number by the shortest digits that give it back.

    Of themselves pandas 3.0 and NumPy 2.5 together lose the last digits.
    """
    return frame.to_csv(index=False, float_format=_shortest)


def _shortest(number: Any) -> str:
    return float.__repr__(float(number))


def to_parquet(frame: pd.DataFrame, cells: Cells | None = None) -> bytes:
    """Every column in its type; the notes stand in `attrs` when pandas reads it."""
    kept = frame.copy(deep=False)
    kept.attrs = {**frame.attrs, "notes": cells.notes if cells else []}
    buffer = io.BytesIO()
    kept.to_parquet(buffer, index=False)
    return buffer.getvalue()


def plain_text(cells: Cells) -> str:
    """In aligned columns for a terminal, with the notes underneath; a line of dashes begins a new group."""
    right = [place for place in range(len(cells.header)) if place not in cells.text_columns]
    lines = list(aligned([cells.header, *cells.rows], right))
    rule = "-" * max(map(len, lines))
    body = [line for place, row in enumerate(lines[1:]) for line in ([rule] * (place in cells.rules) + [row])]
    return "\n".join([lines[0], rule, *body, "", *cells.notes])


def markdown(cells: Cells) -> str:
    """As GitHub renders it, with the notes underneath."""
    sides = ["---" if place in cells.text_columns else "---:" for place in range(len(cells.header))]
    lines = [_markdown_row(cells.header), f"|{'|'.join(sides)}|", *map(_markdown_row, cells.rows)]
    return "\n".join([*lines, "", *(f"{_one_line(note)}  " for note in cells.notes)])


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_cell, row))} |"


def _markdown_cell(cell: str) -> str:
    return re.sub(r"([\\|<`])", r"\\\1", _one_line(cell))


def latex(cells: Cells) -> str:
    r"""A tabular in booktabs' style, with the notes underneath; pdfLaTeX, XeLaTeX and LuaLaTeX take it."""
    sides = "".join("l" if place in cells.text_columns else "r" for place in range(len(cells.header)))
    body = []
    for place, row in enumerate(cells.rows):
        body += [r"\midrule"] * (place in cells.rules) + [_latex_row(row)]
    notes = [rf"\par\noindent {latex_text(note)}" for note in cells.notes]
    lines = [
        r"% In the preamble: \usepackage{booktabs}",
        _OR_CODE_POINT,
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        _latex_row(cells.header),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"{\footnotesize", *notes, r"\par}"] if notes else []),
    ]
    return "\n".join(lines)


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, row)) + r" \\"


def _latex_cell(cell: str) -> str:
    text = _MINUS.sub("$-$", latex_text(cell))
    # A row that begins with a bracket would be read as the space of the row before it, and a star as its option.
    return "{}" + text if text[:1] in ("[", "*") else text


FORMATS: dict[str, Callable[[pd.DataFrame, Cells], bytes]] = {
    "csv": to_csv,
    "parquet": to_parquet,
    "md": lambda _, cells: (markdown(cells) + "\n").encode(),
    "tex": lambda _, cells: (latex(cells) + "\n").encode(),
}

# LaTeX ---------------------------------------------------------------------------------------------------------

# pdfLaTeX stops at a letter that its fonts do not have: it gets the code point, and the other two the letter.
_OR_CODE_POINT = r"\providecommand{\orcodepoint}[2]{\ifdefined\Umathchar#1\else#2\fi}"
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")  # of a number; that of "top-2" stays a hyphen
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}",
    "§": r"\S{}", "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "Δ": r"$\Delta$", "–": r"\textendash{}",
    "—": r"\textemdash{}", "…": r"\dots{}", "≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "→": r"$\rightarrow$",
    "·": r"$\cdot$", "\u00a0": "~", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Any text so that LaTeX sets it as it stands."""
    letters = "".join(map(_latex_letter, _one_line(unicodedata.normalize("NFC", text))))
    return re.sub(r"-(?=-)", "-{}", letters)  # two would become one dash


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    base, *accents = list(unicodedata.normalize("NFD", letter))
    if len(accents) == 1 and accents[0] in _ACCENTS and base.isascii() and base.isalpha():
        dotless = {"i": r"\i", "j": r"\j"}.get(base, base) if accents[0] != "\u0327" else base
        return rf"\{_ACCENTS[accents[0]]}{{{dotless}}}"
    return rf"\orcodepoint{{{letter}}}{{[U+{ord(letter):04X}]}}"


def _one_line(text: str) -> str:
    """Without line ends and other signs that steer: a cell is one line whatever it was made of."""
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
