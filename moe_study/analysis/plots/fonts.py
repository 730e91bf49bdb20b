"""Names in pictures are the user's, in any script: the fonts that have their characters, or a sentence about them."""

import functools
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

SHOWN = 8  # missing characters that are named
LAST_RESORT = "Last Resort"  # a font of boxes for every character


def choose_fonts(figure: Figure) -> str:
    """Give every text of the figure the fonts that it needs, of those installed; the characters that none of them has.

    A text that the usual font can write keeps it alone, so that its picture stays the same to the last byte.
    """
    missing: set[str] = set()
    for text in figure.findobj(Text):
        usual = text.get_fontfamily()
        known = _characters(_usual_file())
        foreign = {sign for sign in text.get_text() if not sign.isspace() and ord(sign) not in known}
        if foreign:
            families, without = _families_for(frozenset(foreign))
            text.set_fontfamily([*usual, *families])
            missing |= without
    return "".join(sorted(missing))


def sentence(missing: str) -> str:
    """What to tell the user about characters that no installed font has."""
    signs = " ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
    return (
        f"no installed font has {signs}, so pictures show boxes in their place; install one that has, such as Noto Sans"
        " CJK (Debian and Ubuntu: fonts-noto-cjk), and draw again"
    )


@functools.cache
def _families_for(signs: frozenset[str]) -> tuple[list[str], set[str]]:
    """Installed families that have some of the signs, as few as it takes one by one, and the signs that are left."""
    left, families = set(signs), []
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.style != "normal", entry.name)):
        if not left:
            break
        if LAST_RESORT in entry.name:
            continue
        found = {sign for sign in left if ord(sign) in _characters(entry.fname)}
        if found:
            families.append(entry.name)
            left -= found
    return list(dict.fromkeys(families)), left


@functools.cache
def _usual_file() -> str:
    return font_manager.findfont("DejaVu Sans")


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """Code points that a font file has; none where it cannot be read."""
    try:
        return frozenset(FT2Font(str(Path(file))).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
