"""Paragraphs of manual pages: man(7), as groff reads it. Pages in the other dialect, mdoc(7), are left out."""

import re
from collections.abc import Callable, Iterator

_BREAKS = frozenset(["SH", "SS", "PP", "P", "LP", "TP", "IP", "HP", "RS", "RE", "sp", "br", "TQ", "UE", "ME"])
_VERBATIM = {"nf": "fi", "EX": "EE", "TS": "TE", "EQ": "EN", "de": ".", "ig": "."}
_FONTS = frozenset(["B", "I", "R", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB"])
_ESCAPES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d|\\[&/,|^%:c!)]|\\m\[[^\]]*\]"), ""),
    (re.compile(r"\\(?:\((.)(.)|\[([^\]\s]{1,12})\])"), lambda match: _named(match)),
    (re.compile(r"\\\*(?:\[[^\]]*\]|\(..|.)"), ""),
    (
        re.compile(r"\\[- ~0e'`.]"),
        lambda match: {"-": "-", "e": "\\", "'": "´", "`": "`", ".": "."}.get(match.group()[1], " "),
    ),
]
_NAMES = {
    "aq": "'", "dq": '"', "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "em": "—", "en": "–", "bu": "•", "co": "©",
    "rs": "\\", "ha": "^", "ti": "~", "ga": "`", "aa": "´", "Fo": "«", "Fc": "»", "Bq": "„", "bq": "‚", "->": "→",
    "<-": "←", "mu": "×", "ss": "ß", "mc": "µ", "hy": "-", "char46": ".",
}  # fmt: skip


def _named(match: re.Match[str]) -> str:
    name = match.group(3) or match.group(1) + match.group(2)
    if re.fullmatch(r"u[0-9A-F]{4,5}", name):
        return chr(int(name[1:], 16))
    return _NAMES.get(name, "")


def paragraphs(page: str) -> Iterator[str]:
    """Prose of a page; examples, tables and comments left out."""
    if re.search(r"^\.(?:Dd|so)\s", page, re.MULTILINE):
        return
    pieces: list[str] = []
    until = ""
    for line in page.splitlines():
        if line.startswith(("'\\\"", '.\\"')):  # comments
            continue
        request = re.match(r"[.']\s*([A-Za-z.]+)\s*(.*)", line)
        name = request.group(1) if request else ""
        if until:
            until = "" if name == until or line.strip() == f".{until}" else until
        elif name in _VERBATIM:
            until = _VERBATIM[name]
        elif request is None:
            if line.strip():
                pieces.append(_unescaped(line))
            elif pieces:  # an empty line ends a paragraph, too
                yield " ".join(pieces)
                pieces = []
        elif name in _FONTS:
            pieces.append(_words(request.group(2), "" if len(name) == 2 and name != "SM" else " "))
        elif name in _BREAKS and pieces:
            yield " ".join(pieces)
            pieces = []
    if pieces:
        yield " ".join(pieces)


def _words(arguments: str, between: str) -> str:
    """The words of a macro's line, quotes read: set close together, as two fonts are, or apart."""
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', arguments)
    return between.join(_unescaped(quoted.replace('""', '"') or plain) for quoted, plain in found)


def _unescaped(text: str) -> str:
    for pattern, replacement in _ESCAPES:
        text = pattern.sub(replacement, text)
    return text.split('\\"')[0]
