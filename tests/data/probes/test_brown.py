"""brown read from a package made here, which looks as the pinned one does."""

import dataclasses
import io
import tarfile
from pathlib import Path

import pytest

from moe_study.data.download import sha256_of
from moe_study.data.places import downloads_in
from moe_study.data.probes import brown, prepare_probe
from moe_study.data.probes.brown import opening, part_of_speech
from moe_study.data.tokenizers import ByteTokenizer

TAGGED = """

	``/`` Well/uh ,/, you'll/ppss+md see/vb ''/'' ,/, said/vbd Al's/np$ (/( old/jj )/) friend/nn-tl ./.
Is/bez it/pps so/rb ?/. ?/.


	Not/* now/rb --/-- never/rb **zg/nn ./.-hl c'est/fw-ppss+bez
"""


def test_words_are_put_together_as_one_reads_them_and_keep_their_places() -> None:
    text, words = opening(TAGGED)
    assert text == '"Well, you\'ll see", said Al\'s (old) friend. Is it so?\nNot now -- never. c\'est'
    assert [(text[word.start : word.end], word.label) for word in words] == [
        ('"', "punctuation"), ("Well", "interjection"), (",", "punctuation"), ("you'll", "pronoun"), ("see", "verb"),
        ('"', "punctuation"), (",", "punctuation"), ("said", "verb"), ("Al's", "proper noun"), ("(", "punctuation"),
        ("old", "adjective"), (")", "punctuation"), ("friend", "noun"), (".", "punctuation"), ("Is", "auxiliary"),
        ("it", "pronoun"), ("so", "adverb"), ("?", "punctuation"), ("Not", "adverb"), ("now", "adverb"),
        ("--", "punctuation"), ("never", "adverb"), (".", "punctuation"),
    ]  # fmt: skip


def test_an_opening_is_whole_paragraphs() -> None:
    assert opening(TAGGED, characters=5)[0].endswith("so?")
    assert opening("\n\n  \n\n")[0] == ""


@pytest.mark.parametrize(
    ("tag", "part"),
    [
        ("nn-tl-hl", "noun"), ("doz*", "auxiliary"), ("ppss+ber-n", "pronoun"), ("in-tl", "preposition"),
        ("md*", "auxiliary"), ("fw-nn", None), ("nil", None), ("vbg+to", "verb"), ("np$", "proper noun"),
        ("--", "punctuation"), ("wdt+ber+pp", "determiner"), ("in+at-t", "preposition"),
    ],
)  # fmt: skip
def test_tags_with_marks_and_contractions_have_the_part_of_speech_of_their_first(tag: str, part: str | None) -> None:
    assert part_of_speech(tag) == part


def test_a_probe_has_a_genre_for_each_text_and_a_part_of_speech_for_each_byte_of_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads_in(tmp_path) / brown.PACKAGE.filename
    path.parent.mkdir()
    genres = "ca01 news\ncn02 science_fiction\n"
    members = {"ca01": TAGGED, "cn02": "Dr/nn ran/vbd ./.", "cats.txt": genres, "README": ""}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode("latin-1")))
    monkeypatch.setattr(brown, "PACKAGE", dataclasses.replace(brown.PACKAGE, sha256=sha256_of(path)))
    probe = prepare_probe("brown", ByteTokenizer(), tmp_path, progress=False)
    assert probe.documents == 2 and probe.document_labels["genre"][1] == ("news", "science fiction")
    codes, values = probe.token_labels["part of speech"]
    short = int(probe.document_labels["genre"][0].tolist().index(1))
    span = slice(probe.start_D1[short], probe.start_D1[short + 1])
    assert bytes(probe.token_T[span].tolist()) == b"Dr ran."
    found = [values[code] if code >= 0 else None for code in codes[span]]
    assert found == ["noun", "noun", None, "verb", "verb", "verb", "punctuation"]
