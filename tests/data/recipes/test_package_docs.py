import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moe_study.data import PreparedCorpus, prepare
from moe_study.data.download import Wheel, sha256_of
from moe_study.data.recipes import package_docs
from moe_study.data.recipes.docs import sources
from moe_study.data.recipes.docs.apt import AptRoot
from moe_study.data.recipes.docs.cleaning import FOREIGN, SEEN, UNTRANSLATED
from moe_study.data.recipes.package_docs import SHORT, documents_of, is_chosen
from moe_study.data.shards import ATTRIBUTION, read_manifest
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.design.data_options import DOCS_FAMILIES, check_data_config
from moe_study.errors import ConfigError, DataError
from tests.data.recipes.docs.planted import Files, archive, wheel

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is only on Debian and its relatives")
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]
SENTENCES = {
    "en": "The {} page of the guide to the {} is about what you can do with it, and {} is the one that it is for.",
    "de": "Die {} Seite der Anleitung zu dem {} sagt, was sie damit tun, und {} ist der Name, für den sie ist.",
    "fr": "La page {} du guide des {} dit ce que vous faites avec, et {} est le nom pour lequel elle est faite.",
    "ja": "{}というページは{}の案内です。これで何ができるかを説明し、{}という名前が付いています。",
}
STRAY = "This one was never translated, and it is the same in all of the languages that are in the package."


def page(language: str, number: int, extra: str = "") -> bytes:
    """A page of three paragraphs that no other has."""
    lines = [
        SENTENCES[language].format(
            WORDS[number % 10], WORDS[number // 10 % 10] + WORDS[part], WORDS[(number + part) % 7]
        )
        for part in range(3)
    ]
    return "".join(f"<p>{line}</p>" for line in [*lines, extra] if line).encode()


def handbook(pages: int = 40, stray: str = STRAY) -> Files:
    names = {"en": "en-US", "de": "de-DE", "fr": "fr-FR", "ja": "ja-JP"}
    files = {
        f"usr/share/doc/debian-handbook/html/{names[language]}/p{n}.html": page(language, n, stray)
        for language in names
        for n in range(pages)
    }
    files["usr/share/doc/debian-handbook/html/de-DE/foreign.html"] = page("fr", 99)
    files["usr/share/doc/debian-handbook/copyright"] = b"License: CC-BY-SA-3.0\nLicense: GPL-2+\n"
    return files


def described(language: str) -> str:
    """A list of 30 packages with two paragraphs each."""
    sentence = SENTENCES[language]
    records = []
    for n in range(30):
        first = sentence.format("p", n, WORDS[n % 10] + WORDS[n // 10])
        second = sentence.format("q", WORDS[n // 10], WORDS[n % 10] * 2)
        records.append(
            f"Package: p{n}\nDescription-md5: {n:032x}\nDescription-{language}: Short\n {first}\n .\n {second}\n"
        )
    return "\n".join(records)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Files]], None]:
    """Serves Debian packages and one wheel from a folder; called again, it serves others."""
    index = tmp_path / "index"
    index.mkdir()
    name = "tiny_services-1.0-py3-none-any.whl"
    info = "tiny_services-1.0.dist-info"
    services = {
        f"botocore/data/service{n}/2020/service-2.json.gz": gzipped(
            '{"documentation": "<p>' + SENTENCES["en"].format(f"s{WORDS[n]}", "service", WORDS[n - 1]) * 3 + '</p>"}'
        )
        for n in range(10)
    }
    metadata = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-services\nVersion: 1.0\nLicense: Apache-2.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    made = wheel(index / name, {**services, **metadata})
    pinned = Wheel("tiny-services==1.0", name, sha256_of(made), made.stat().st_size)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(sources, "WHEELS", ((sources.WHEELS[0][0], pinned),))

    def serve(packages: dict[str, Files]) -> None:
        lists = {language: described(language) for language in ("en", "de")}
        configured = archive(tmp_path / "archive", packages, lists)
        monkeypatch.setattr(package_docs, "AptRoot", partial(AptRoot, configured=configured))

    return serve


def gzipped(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


WITHOUT_PIP = {"amazon": 0}  # pip takes most of a second


def config(root: Path, **options: Any) -> DataConfig:
    given = {"languages": ["en", "de", "fr"], "limits": WITHOUT_PIP, **options}
    return DataConfig("docs", "package_docs", given, TokenizerConfig("bytes"), 0.2, str(root))


def texts(corpus: PreparedCorpus) -> dict[str, list[str]]:
    """Documents by split, language and topic."""
    found: dict[str, list[str]] = {}
    for split in (corpus.train, corpus.validation):
        for shard in split.shards:
            whole = corpus.tokenizer.decode(shard.tokens)
            key = f"{split.name} {corpus.languages[shard.language]} {corpus.topics[shard.topic]}"
            found[key] = whole.split("<|endoftext|>")[:-1]
    return found


@needs_apt
def test_packages_become_a_corpus_with_languages_topics_and_attribution(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook(), "python3.11-doc": python_pages()})
    corpus = prepare(config(tmp_path / "data", limits={}), progress=False)
    assert corpus.languages == ["de", "en", "fr"]
    assert corpus.topics == ["administration", "programming", "services", "software"]
    found = texts(corpus)
    everything = [text for many in found.values() for text in many]
    assert len(everything) == len(set(everything))
    for key, many in found.items():
        language = key.split()[1]
        mark = {"en": " of the ", "de": " der ", "fr": "La page"}[language]
        assert all(mark in text for text in many), key
    assert sum(text.count(STRAY) for text in everything) == 1  # in English, once
    # What stands in two packages stands in the first one alone.
    assert not any(SENTENCES["en"].format("amber", "amberamber", "amber") in text
                   for key in found if "programming" in key for text in found[key])  # fmt: skip
    left_out = corpus.read["left_out"]  # type: ignore[index]
    assert {SEEN, FOREIGN, UNTRANSLATED, SHORT} <= left_out.keys()
    assert left_out[FOREIGN]["count"] == 3  # French in a German file
    assert any("no package gnome-user-docs" in note for note in corpus.read["notes"])  # type: ignore[index]
    page_of_origins = (corpus.folder / ATTRIBUTION).read_text(encoding="utf-8")
    assert "| debian-handbook | 1:1.0 | debian | CC-BY-SA-3.0, GPL-2+ |" in page_of_origins
    assert "| tiny-services | 1.0 | Python package index | Apache-2.0 |" in page_of_origins
    manifest = read_manifest(corpus.folder)
    assert manifest is not None and "debian-handbook=1:1.0" in manifest["pins"]["packages"]


def python_pages() -> Files:
    own = {f"usr/share/doc/python3.11/html/library/m{n}.html": page("en", 50 + n) for n in range(20)}
    return {
        **own,
        "usr/share/doc/python3.11/html/copied.html": page("en", 0),
        "usr/share/doc/python3.11/html/search.html": page("en", 80),
    }


@needs_apt
def test_a_page_and_its_translations_are_on_one_side_of_the_split(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook()})
    found = texts(prepare(config(tmp_path / "data"), progress=False))
    sides: dict[str, set[str]] = {}
    for key, many in found.items():
        split, language, topic = key.split()
        if topic == "administration":
            for text in many:
                first = text.split("\n\n")[0]
                number = next(n for n in range(40) if page(language, n).decode().startswith(f"<p>{first}"))
                sides.setdefault(str(number), set()).add(split)
    assert len(sides) == 40 and all(len(side) == 1 for side in sides.values())
    assert {split for side in sides.values() for split in side} == {"train", "validation"}


@needs_apt
def test_a_preparation_that_was_killed_reads_no_package_twice(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry({"debian-handbook": handbook(), "python3.11-doc": python_pages()})
    read: list[str] = []
    real = package_docs.extract

    def until(name: str) -> Callable[..., Any]:
        def extract(path: Path, family: sources.Family) -> Any:
            if family.name == name:
                raise KeyboardInterrupt
            read.append(family.name)
            return real(path, family)

        return extract

    monkeypatch.setattr(package_docs, "extract", until("python"))
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tmp_path / "data"), progress=False)
    shutil.rmtree(tmp_path / "archive" / "pool")  # all that is needed was fetched
    monkeypatch.setattr(package_docs, "extract", until("nothing"))
    resumed = prepare(config(tmp_path / "data"), progress=False)
    assert sorted(read) == ["handbook", "python"]
    registry({"debian-handbook": handbook(), "python3.11-doc": python_pages()})
    assert prepare(config(tmp_path / "elsewhere"), progress=False).fingerprint == resumed.fingerprint


@needs_apt
def test_the_fingerprint_tells_two_versions_apart(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook()})
    first = prepare(config(tmp_path / "a"), progress=False)
    registry({"debian-handbook": handbook(41)})
    assert prepare(config(tmp_path / "a"), progress=False).fingerprint == first.fingerprint  # prepared is prepared
    assert prepare(config(tmp_path / "b"), progress=False).fingerprint != first.fingerprint


@needs_apt
def test_a_share_is_a_part_and_a_limit_counts_bytes_of_a_family(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook(stray="")})

    def documents(**options: Any) -> set[str]:
        found = texts(prepare(config(tmp_path / "data", **options), progress=False))
        return {text for many in found.values() for text in many}

    whole, half, less = documents(), documents(share=0.5), documents(share=0.3)
    assert less < half < whole
    assert 0.3 * len(whole) < len(half) < 0.7 * len(whole)
    limited = documents(limits={"handbook": 2000, "descriptions": 0, "amazon": 0})
    assert limited < whole
    english = [text for text in limited if "page of the guide" in text and "service" not in text]
    assert 2000 <= sum(len(text.encode()) for text in english) < 2000 + 500


@needs_apt
def test_a_damaged_package_is_named_and_the_rest_is_kept(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook(), "doc-rfc-std": {"usr/share/doc/RFC/rfc1.txt.gz": b"no gzip"}})
    with pytest.raises(
        DataError, match=r"doc-rfc-std_1%3a1\.0_all\.deb: .*rfc1\.txt\.gz: a compressed member is damaged"
    ):
        prepare(config(tmp_path / "data"), progress=False)
    kept = {path.name.split("_")[0] for path in (tmp_path / "data" / "downloads" / "extracted").glob("*.parquet")}
    assert kept == {"debian-handbook"}


@needs_apt
def test_a_family_that_is_limited_to_nothing_is_not_fetched(registry: Any, tmp_path: Path) -> None:
    registry({"debian-handbook": handbook(), "python3.11-doc": python_pages()})
    corpus = prepare(config(tmp_path / "data", limits={"amazon": 0, "descriptions": 0, "python": 0}), progress=False)
    assert corpus.topics == ["administration"]
    fetched = [path.name for path in (tmp_path / "data" / "downloads" / "packages").iterdir() if path.name[0] != "."]
    assert fetched == ["debian-handbook_1%3a1.0_all.deb"]


@needs_apt
@pytest.mark.long
def test_real_packages_of_debian_are_documents_in_their_languages(downloads: Path) -> None:
    """Downloads apt's lists (35 MB) and the smallest family: a book of questions and answers, half a megabyte each."""
    limits = {name: 0 for name in DOCS_FAMILIES if name != "faq"}
    options = {"languages": ["en", "de", "fr", "ru", "ja"], "limits": limits}
    corpus = prepare(config(downloads.parent / "docs", **options), progress=False)
    if any("no package debian-faq" in note for note in corpus.read["notes"]):  # type: ignore[index]
        pytest.skip("needs the archives of Debian")
    assert corpus.languages == ["de", "en", "fr", "ja", "ru"] and corpus.topics == ["administration"]
    marks = {"de": " und ", "en": " the ", "fr": " les ", "ja": "の", "ru": " в "}
    for key, many in texts(corpus).items():
        assert sum(marks[key.split()[1]] in text for text in many) > 0.8 * len(many)
    assert corpus.train.tokens > 400_000


def test_documents_are_neither_long_nor_short() -> None:
    assert list(documents_of(["short"])) == []
    assert list(documents_of(["a" * 150, "b" * 150])) == ["a" * 150 + "\n\n" + "b" * 150]
    cut = list(documents_of([f"{n} " + "x" * 6000 for n in range(10)]))
    assert [len(text) // 6000 for text in cut] == [3, 3, 3, 1]
    assert sum(is_chosen(f"work {n}", 0.25) for n in range(4000)) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"languages": ["en", "xx"]}, "data.options.languages: xx is unknown; there are en, de"),
        ({"languages": ["de"]}, "data.options.languages needs en"),
        ({"limits": {"nothing": 1}}, "data.options.limits: nothing is unknown; there are handbook"),
        ({"limits": {"rfc": -1}}, "rfc must be a number of bytes or null"),
        ({"share": 0}, "data.options.share=0"),
        ({"share": 1.5}, "must be above 0 and at most 1"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_data_config(config(Path("data"), **options))
    assert sentence in str(caught.value)
