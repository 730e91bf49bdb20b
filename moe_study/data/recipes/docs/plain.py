"""Paragraphs of plain text: Internet standards (RFC), Perl's pod, and dictionaries of the dict protocol."""

import re
from collections.abc import Iterator

_ENTRIES_A_DOCUMENT = 200

_PAGE_FOOT = re.compile(r"^.{0,70}\[Page\s+\w+\][ \t]*$", re.MULTILINE)
_PAGE_HEAD = re.compile(r"^(?:RFC|Internet[- ]Draft) .{0,90}\b(?:19|20)\d\d[ \t]*$", re.MULTILINE)
_CONTENTS_LINE = re.compile(r"(?:\. ?){4,}\s*\d+\s*$|_{4,}")
_DRAWING = re.compile(r"[|+\\/_=*#<>^~-]{3,}|\s{4,}\S|[|+]\s|\.\.\.\.")


def rfc_paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of an RFC: page breaks closed, contents, drawings and tables left out."""
    for lines in _blocks(_one_page(_PAGE_HEAD.sub("", _PAGE_FOOT.sub("", text)))):
        if not any(_CONTENTS_LINE.search(line) or _DRAWING.search(line) for line in lines):
            yield joined(lines)


def _one_page(text: str) -> str:
    """Pages one after another; a sentence that goes on on the next page goes on."""
    pieces: list[str] = []
    for page in text.split("\f"):
        page = page.strip()
        if page and pieces:
            goes_on = pieces[-1][-1] not in ".:;!?" and (page[0].islower() or page[0] == "(")
            pieces.append("\n" if goes_on else "\n\n")
        if page:
            pieces.append(page)
    return "".join(pieces)


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines between empty lines, without blanks at their ends."""
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if stripped := line.strip():
            lines.append(stripped)
        elif lines:
            yield lines
            lines = []


def joined(lines: list[str]) -> str:
    """Lines as one; a word that ends in a hyphen and goes on on the next line is not broken by a blank."""
    return re.sub(r"(?<=[a-z])- (?=[a-z])", "-", " ".join(lines))


_POD_CODE = re.compile(r"[BCEFILSXZ](<{2,4}\s.*?\s>{2,4}|<[^<>]*>)")
_POD_NAMES = {"lt": "\ue000", "gt": "\ue001", "verbar": "|", "sol": "/"}  # < and > stand for codes until all are read


def pod_paragraphs(text: str) -> Iterator[str]:
    """Prose of perlpod: neither commands nor what is indented."""
    for block in re.split(r"\n\s*\n", text):
        if block[:1] in ("=", " ", "\t", ""):
            if heading := re.match(r"=(?:head\d|item)\s+(.*)", block, re.DOTALL):
                yield _without_pod_codes(heading.group(1))
            continue
        yield _without_pod_codes(block)


def _without_pod_codes(block: str) -> str:
    for _ in range(4):  # codes stand in codes
        plain = _POD_CODE.sub(_pod_text, block)
        if plain == block:
            break
        block = plain
    return block.replace("\ue000", "<").replace("\ue001", ">")


def _pod_text(match: re.Match[str]) -> str:
    kind, inner = match.group()[0], match.group(1).strip("<>").strip()
    if kind in "XZ":
        return ""
    if kind == "E":
        return _POD_NAMES.get(inner, "")
    return inner.split("|")[0] if kind == "L" else inner


def dictionary_entries(text: str) -> Iterator[list[str]]:
    """Documents of a dictionary: so many entries together, each its head word and its text in one paragraph."""
    entries: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        if line and not line[0].isspace() and lines:
            entries.append(joined(lines))
            lines = []
            if len(entries) == _ENTRIES_A_DOCUMENT:
                yield entries
                entries = []
        if line.strip():
            lines.append(re.sub(r"[{}]|\s*\[(?:1913 Webster|PJC|WordNet[^\]]*|Webster[^\]]*)\]", "", line.strip()))
    yield [*entries, joined(lines)] if lines else entries
