"""Which paragraphs are text: long enough, mostly letters, in the language that they are said to be in, and new."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

from moe_study.data.tally import Tally

LEAST_BYTES = 40  # of a paragraph
MOST_CHARACTERS = 20_000  # of a paragraph: a longer one is a list that a program wrote
LEAST_LETTERS = 0.75  # of the characters that are no blanks
SCRIPT = 0.5  # of the letters of a paragraph in Cyrillic or Chinese characters, at least
FOREIGN = "paragraphs in another language than their file's"
UNTRANSLATED = "paragraphs that were not translated"
SEEN = "paragraphs seen before"

_BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_NOT_BLANK = re.compile(r"\S")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_HAN = re.compile(r"[\u3400-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_OTHER_SCRIPT = re.compile(r"[\u0370-\u1fff\u3040-\ud7ff]")

# The commonest words of each language here that is written in Latin letters; what two share counts for both.
_FUNCTION_WORDS = {
    "en": "the of and to is that this with for are be as by it from or which you an can not if will have has",
    "de": "der die das und ist nicht ein eine zu den von mit für auf werden wird sie dem im auch sich des oder"
    " wenn als",
    "fr": "le les des est une pour dans que qui par sur sont vous pas du avec ce cette être ou plus peut aux et",
    "it": "il di che è per una del della sono con nel non gli dei si può questo questa alla delle come essere viene e",
    "es": "el los las que en para por con una del se es puede este esta como más su son no al lo y archivo",
}
_LANGUAGES_OF: dict[str, list[str]] = {}  # of each of those words
for _language, _words in _FUNCTION_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


def clean(paragraphs: Iterable[str]) -> Iterator[str]:
    """Paragraphs of text, each on one line; fragments, tables, code and what was read wrongly are left out."""
    for paragraph in paragraphs:
        text = " ".join(_INVISIBLE.sub("", paragraph).split())
        if len(text.encode("utf-8", "replace")) < LEAST_BYTES or len(text) > MOST_CHARACTERS:
            continue
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
        letters, visible = len(_LETTER.findall(text)), len(text) - text.count(" ")
        if letters >= LEAST_LETTERS * visible and not _BROKEN.search(text):
            yield text


def is_in(language: str, paragraph: str) -> bool:
    """Whether a paragraph may be of that language: by its script, or by words that only one language has.

    A paragraph without any such word is given the benefit of the doubt.
    """
    letters = len(_LETTER.findall(paragraph))
    if language == "ru":
        return len(_CYRILLIC.findall(paragraph)) > SCRIPT * letters
    if language in ("zh", "ja"):
        kana = len(_KANA.findall(paragraph))
        if kana + len(_HAN.findall(paragraph)) <= SCRIPT * letters:
            return False
        return (kana > 0) if language == "ja" else kana <= 0.02 * letters
    if len(_OTHER_SCRIPT.findall(paragraph)) > (1 - SCRIPT) * letters:
        return False
    counts = dict.fromkeys(_FUNCTION_WORDS, 0)
    for word in _WORD.findall(paragraph.lower()):
        for name in _LANGUAGES_OF.get(word, ()):
            counts[name] += 1
    return counts[language] == max(counts.values())


def key_of(paragraph: str) -> int:
    """64 bits that are equal for paragraphs equal but for numbers, capitals and what is no letter."""
    letters = re.sub(r"[\W\d_]+", "", paragraph.casefold())
    return int.from_bytes(hashlib.blake2b(letters.encode(), digest_size=8).digest(), "big")


class Sieve:
    """Lets each paragraph of a language pass once, and none that also stands in English."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._seen: dict[str, set[int]] = {}

    def new(self, paragraphs: Iterable[str], language: str) -> list[str]:
        """Those that are of the language and were not seen before. English has to come first."""
        kept: list[str] = []
        seen, english = self._seen.setdefault(language, set()), self._seen.setdefault("en", set())
        for paragraph in paragraphs:
            key = key_of(paragraph)
            if key in seen:
                self._tally.leave_out(SEEN)
            elif key in english:
                self._tally.leave_out(UNTRANSLATED)
            elif not is_in(language, paragraph):
                self._tally.leave_out(FOREIGN)
            else:
                seen.add(key)
                kept.append(paragraph)
        return kept
