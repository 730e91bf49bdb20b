from pathlib import Path

from moe_study.data.recipes.docs.extract import VERSIONS, Extract, Work, licence_in
from moe_study.data.recipes.docs.parts import kept, part_of, part_path
from moe_study.data.recipes.docs.sources import DEBIAN, DESCRIPTION_FAMILY, FAMILY_NAMES, LANGUAGES, WHEELS, language_of
from moe_study.data.tally import Tally
from moe_study.design.data_options import DOCS_FAMILIES, DOCS_LANGUAGES

WORKS = [Work("f/a", "en", ["One.", "Two."]), Work("f/a", "de", ["Eins."]), Work("f/b", "en", [])]


def made(calls: list[int]) -> Extract:
    calls.append(1)
    found = Extract(WORKS, "GPL-2+", Tally(files=3))
    found.tally.leave_out("odd", "x")
    return found


def test_a_part_is_made_once_and_again_only_if_it_is_not_what_was_written(tmp_path: Path) -> None:
    path, calls = tmp_path / "extracted" / "x.parquet", list[int]()
    part = part_of(path, lambda: made(calls))
    assert list(part.works("en")) == [WORKS[0], WORKS[2]] and list(part.works("de")) == [WORKS[1]]
    again = part_of(path, lambda: made(calls))
    assert (len(calls), again.licence) == (1, "GPL-2+")
    tally = Tally()
    again.tell(tally)
    again.tell(tally)
    assert (tally.files, tally.left_out["odd"].count) == (6, 2)
    for number, damage in enumerate(
        [
            lambda: path.write_bytes(path.read_bytes()[:-3]),
            lambda: path.unlink(),
            lambda: path.with_suffix(".json").unlink(),  # killed between the two
            lambda: path.with_suffix(".json").write_text("{"),
        ]
    ):
        damage()
        assert kept(path) is None
        assert list(part_of(path, lambda: made(calls)).works("de")) == [WORKS[1]]
        assert len(calls) == 2 + number


def test_a_part_stands_for_its_archive_and_the_way_it_is_read(tmp_path: Path) -> None:
    paths = {part_path(tmp_path, "x.deb", sha256, family) for sha256 in ("a", "b") for family in DEBIAN[:3]}
    assert len(paths) == 6


def test_every_family_has_a_reader_a_name_of_its_own_and_languages() -> None:
    families = [*DEBIAN, *(family for family, _ in WHEELS)]
    assert (FAMILY_NAMES, LANGUAGES) == (DOCS_FAMILIES, DOCS_LANGUAGES)
    assert len(set(FAMILY_NAMES)) == len(families) + 1
    assert all(family.reader in VERSIONS and family.packages for family in families)
    assert DESCRIPTION_FAMILY.reader in VERSIONS
    assert {language for family in families for spoken in family.packages.values() for language in spoken} == set(
        LANGUAGES
    )


def test_the_translations_of_a_page_are_one_work() -> None:
    families = {family.name: family for family in DEBIAN}

    def place(family: str, file: str) -> tuple[str, str] | None:
        return families[family].place_of(file)

    office = "usr/share/libreoffice/help/{}/text/swriter/main.html"
    assert place("libreoffice", office.format("en-US")) == ("libreoffice/text/swriter/main.html", "en")
    assert place("libreoffice", office.format("de")) == ("libreoffice/text/swriter/main.html", "de")
    assert place("libreoffice", office.format("pt-BR")) is None
    assert place("manual", "usr/share/man/man1/ls.1.gz") == ("manual/man1/ls.1", "en")
    assert place("manual", "usr/share/man/ja/man1/ls.1.gz") == ("manual/man1/ls.1", "ja")
    assert place("manual", "usr/share/man/pt_BR/man1/ls.1.gz") is None
    assert place("gnome", "usr/share/help/C/gnome-help/a.page") == ("gnome/gnome-help/a.page", "en")
    assert place("lilypond", "usr/share/doc/lilypond/html/Documentation/learning/a.de.html") == (
        "lilypond/learning/a",
        "de",
    )
    assert place("lilypond", "usr/share/doc/lilypond/html/Documentation/learning/a.html") == (
        "lilypond/learning/a",
        "en",
    )
    assert place("lilypond", "usr/share/doc/lilypond/html/Documentation/learning/a.ca.html") is None
    assert place("faq", "usr/share/doc/debian/FAQ/fr/basic.fr.html") == ("faq/basic", "fr")
    assert place("handbook", "usr/share/doc/debian-handbook/html/ja-JP/a.html") == ("handbook/a.html", "ja")
    assert place("rfc", "usr/share/doc/RFC/links/rfc1.txt.gz") == ("rfc/rfc1", "en")
    assert place("python", "usr/share/doc/python3.11/html/genindex-A.html") is None


def test_locales_are_languages_of_one_way_of_writing() -> None:
    names = ["C", "en-US", "de", "de_DE", "de-DE", "ja-JP", "ja_JP", "zh_TW", "en_GB", "de_AT", "pt"]
    assert [language_of(name) for name in names] == ["en", "en", "de", "de", "de", "ja", "ja", None, None, None, None]


def test_licences_are_named_as_the_package_spells_them() -> None:
    assert (
        licence_in("Files: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: Expat\nLicense: GPL-2+\n") == "GPL-2+, Expat"
    )
    assert licence_in("Name: x\nLicense: Apache-2.0\nClassifier: y\n") == "Apache-2.0"
    assert (
        licence_in("under the terms of the GNU Free\nDocumentation License, Version 1.3")
        == "GNU Free Documentation License"
    )
    assert licence_in("nothing") == ""
    assert licence_in("".join(f"License: L{n}\n" for n in range(30))).endswith("L11 and others")
