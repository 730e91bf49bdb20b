"""Texts and data as the page holds them: nothing of a corpus, a label or a configuration can act as markup.

Jinja escapes what stands in HTML. What is data stands as JSON in <script type="application/json">, where "<", ">" and
"&" are spelled as escapes. In both, characters that no reader sees or that turn the direction of what follows (control
characters, marks of right-to-left text, halves of surrogate pairs) stand by their names: ␀, ⟨U+202E⟩.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 5  # of numbers that are drawn

# Controls but tab and line ends; marks of direction, zero-width ones, separators; surrogates; those that are none.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff\ufff0-\ufffb\ufffe\uffff]"
)
_ESCAPE = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u[0-9a-f]{4}|\\.")
_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def visible(text: str) -> str:
    """`text` with names in the place of characters that are not seen, or that move others."""
    return _HIDDEN.sub(lambda found: _name(found.group()), text)


def _name(sign: str) -> str:
    code = ord(sign)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩"


def as_json(value: Any) -> str:
    """`value` for a <script type="application/json">: ASCII, no sign of markup, hidden characters by name."""
    plain = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and surrogates are escapes
    return _ESCAPE.sub(_seen, plain).translate(_MARKUP)


def _seen(found: "re.Match[str]") -> str:
    """An escape of one character, a pair of surrogates among them, as it is shown."""
    return json.dumps(visible(json.loads(f'"{found.group()}"')))[1:-1]


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame by column: numbers with DIGITS digits (null: none), other values as places in a list of different ones.

    files/charts.js makes rows of it again.
    """
    return {
        "rows": len(frame),
        "columns": {str(name): _column(frame[name]) for name in frame},
    }


def _column(values: "pd.Series[Any]") -> Any:
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        codes, different = pd.factorize(values.astype(object), use_na_sentinel=True)
        return {"of": [one if isinstance(one, bool) else str(one) for one in different], "at": codes.tolist()}
    return numbers(values)


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Numbers for JSON: whole ones as such, others with DIGITS digits, None where there is none."""
    return [_number(value) for value in np.asarray(values, dtype=float).tolist()]


def _number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")
