"""Paragraphs of HTML and of Mallard's XML: what stands between the tags of blocks.

A scanner, not a parser: documentation is written by programs, and only where a paragraph ends and what is not prose
(code, navigation, scripts) has to be known. Time is linear in the length of a page, whatever is in it.
"""

import html
import re
from collections.abc import Iterator


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_BLOCKS = _set_of(
    """
    address article aside blockquote body br caption center dd div dl dt fieldset figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header hr item li main note ol p page section steps summary table tbody td terms tfoot th
    thead title tr ul
    """
)
_LEFT_OUT = _set_of(
    """
    button code-block comment credit footer head header info map media math nav noscript object option pre
    screen script select style svg synopsis textarea
    """
)
_WHOLE = frozenset(("body", "html", "main"))  # always read, whatever their class
_RAW = frozenset(("script", "style", "textarea"))  # hold no tags but their own end
_EMPTY = _set_of(  # never closed
    """
    area br col embed hr img input link meta source wbr
    """
)
_NAMED = re.compile(r"""\b(?:class|id|role)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""")
_NOT_PROSE = _set_of(
    """
    authorgroup breadcrumb breadcrumbs clearer contents contents_shortcontents example-contents footer header
    headerlink highlight indexdiv legalnotice list-of-tables literallayout nav nav-panel navbar navfooter
    navheader navigation programlisting related revhistory screen sidebar sphinxsidebar synopsis
    table-of-contents tableofcontents toc toctree-wrapper
    """
)
_TAG = re.compile(r"/?([a-zA-Z][a-zA-Z0-9:-]*)")
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?([a-zA-Z0-9_-]{3,20})")
_MOST_QUOTED = 8  # ends of tags inside one attribute


def decoded(content: bytes) -> str:
    """The text of a page: UTF-8, or what it says it is."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        said = _CHARSET.search(content[:4096])
    try:
        return content.decode(said.group(1).decode() if said else "latin-1", "replace")
    except LookupError:  # an encoding that nobody knows, or none of texts
        return content.decode("latin-1")


def paragraphs(page: str) -> Iterator[str]:
    """The texts between the tags of blocks, entities read, blanks as they stand; code and navigation left out."""
    pieces: list[str] = []
    inside, depth = "", 0  # the element that is left out, and how deep in others of its name
    for text, tag, name in _scan(page):
        if not inside and text:
            pieces.append(text)
        if not name:
            continue
        closes = tag.startswith("/")
        if inside:
            if name == inside:
                depth += -1 if closes else 0 if tag.endswith("/") else 1
                if depth == 0:
                    inside = ""
            continue
        leaves_out = not closes and not tag.endswith("/") and name not in _EMPTY
        if leaves_out and (name in _LEFT_OUT or (name not in _WHOLE and _is_named_otherwise(tag))):
            inside, depth = name, 1
        if (name in _BLOCKS or inside) and pieces:
            yield html.unescape("".join(pieces))
            pieces = []
    if pieces:
        yield html.unescape("".join(pieces))


def _is_named_otherwise(tag: str) -> bool:
    """Whether a class, an id or a role says that what is inside is not prose."""
    return any(not _NOT_PROSE.isdisjoint("".join(found.groups("")).lower().split()) for found in _NAMED.finditer(tag))


def _scan(page: str) -> Iterator[tuple[str, str, str]]:
    """(text before a tag, the tag without < and >, its name in small letters); comments and the like have no name."""
    place, end = 0, len(page)
    while place < end:
        start = page.find("<", place)
        if start < 0:
            yield page[place:], "", ""
            return
        text = page[place:start]
        if page.startswith("<!--", start):
            place = _after(page, "-->", start + 4)
            yield text, "", ""
        elif page.startswith("<![CDATA[", start):
            place = _after(page, "]]>", start + 9)
            yield text, "", ""
        elif page.startswith(("<!", "<?"), start):
            place = _after(page, ">", start)
            yield text, "", ""
        elif match := _TAG.match(page, start + 1):
            close = _tag_end(page, start)
            name = match.group(1).lower()
            yield text, page[start + 1 : close], name
            place = close + 1
            if name in _RAW and page[start + 1] != "/":
                rest = page.find(f"</{name}", place)
                place = end if rest < 0 else rest
        else:  # "<" that begins no tag
            yield text + "<", "", ""
            place = start + 1


def _after(page: str, mark: str, start: int) -> int:
    found = page.find(mark, start)
    return len(page) if found < 0 else found + len(mark)


def _tag_end(page: str, start: int) -> int:
    """Where the tag's > stands, beyond those in its quoted attributes; the end of the page if it has none."""
    close = page.find(">", start)
    for _ in range(_MOST_QUOTED):
        if close < 0 or page.count('"', start, close) % 2 == 0:
            break
        close = page.find(">", close + 1)
    return len(page) if close < 0 else close
