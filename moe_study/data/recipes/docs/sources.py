"""Which documentation is read: families of packages whose files are alike, most of them in several languages.

A work is what must not be torn apart: one page in all of its languages, one standard, one service. Its name comes out
of a file's path without the language, so that translations share it, and with it their side of the split.
"""

import re
from dataclasses import dataclass

from moe_study.data.download import Wheel

LANGUAGES = ("en", "de", "fr", "it", "es", "ru", "ja")  # in the order in which they are read
DESCRIPTIONS = "descriptions"  # the family of the descriptions of Debian's packages: no archive, but apt's own lists
_LOCALES = {"C": "en", "en-us": "en", **{one: one for one in LANGUAGES}, **{f"{one}-{one}": one for one in LANGUAGES},
            "ja-jp": "ja"}  # fmt: skip
_LANG = r"(?P<lang>[a-zA-Z]{1,3}(?:[-_][a-zA-Z]{2,4})?)"
_PAGES = r"/html/(?P<work>(?!_modules|_sources|genindex|search|translations).+\.html)$"  # as Sphinx lays them out


@dataclass(frozen=True)
class Family:
    """Packages that are read alike.

    name      stands in data.options.limits, and begins the names of works
    topic     the label of its texts
    packages  which packages, and the languages that are in each. Names are regular expressions: of the packages whose
              whole name fits, the last by its numbers is taken
    files     regular expression of the names of files in them; (?P<work>) and (?P<lang>) where they say so
    reader    which format: a key of extract.READERS
    """

    name: str
    topic: str
    packages: dict[str, tuple[str, ...]]
    files: str
    reader: str = "markup"

    def place_of(self, file: str) -> tuple[str, str] | None:
        """(work, language) of a file; None for files that are not read, or in another language."""
        if not (match := re.search(self.files, file)):
            return None
        found = match.groupdict()
        language = language_of(found["lang"]) if found.get("lang") else "en"
        return (f"{self.name}/{found['work']}", language) if language else None


def language_of(locale: str) -> str | None:
    """de for de, de-DE, de_DE; None for locales of other languages, and for other regions' ways to write one."""
    return _LOCALES.get(locale) or _LOCALES.get(locale.replace("_", "-").lower())


def _english(*names: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(names, ("en",))


def _each(pattern: str, languages: str, english: str = "") -> dict[str, tuple[str, ...]]:
    """A package for each language, in English of another name where `english` says so."""
    return {**_english(*english.split()), **{pattern.format(one): (one,) for one in languages.split()}}


DEBIAN = (
    Family("handbook", "administration", {"debian-handbook": LANGUAGES},
           rf"/debian-handbook/html/{_LANG}/(?P<work>[^/]+\.html)$"),
    Family("installation", "administration", {"installation-guide-amd64": LANGUAGES},
           rf"/installation-guide-amd64/{_LANG}/(?P<work>[^/]+\.html)$"),
    Family("reference", "administration", _each("debian-reference-{}", "en de fr it es ja"),
           rf"/debian-reference/(?P<work>[^/]+)\.{_LANG}\.html$"),
    Family("aptitude", "administration", _each("aptitude-doc-{}", "en fr it es ja ru"),
           rf"/aptitude/html/{_LANG}/(?P<work>[^/]+\.html)$"),
    Family("developers", "administration", _each("developers-reference-{}", "de fr it ja ru", "developers-reference"),
           rf"/developers-reference/(?:{_LANG}/)?(?P<work>[^/]+\.html)$"),
    Family("faq", "administration", _each("debian-faq-{}", "de fr it ru ja", "debian-faq"),
           rf"/debian/FAQ/(?:{_LANG}/)?(?P<work>[^/]+?)(?:\.[a-z-]+)?\.html$"),
    Family("policy", "administration", _english("debian-policy"), r"/debian-policy/(?P<work>.+\.html)$"),
    Family("gnome", "desktop", {"gnome-user-docs": LANGUAGES}, rf"share/help/{_LANG}/(?P<work>.+\.page)$"),
    Family("libreoffice", "office", _each("libreoffice-help-{}", "de fr it es ru ja", "libreoffice-help-en-us"),
           rf"/libreoffice/help/{_LANG}/(?P<work>text/.+\.html)$"),
    Family("gimp", "graphics", _each("gimp-help-{}", "en de fr it es ru ja"),
           rf"/gimp/2\.0/help/{_LANG}/(?P<work>[^/]+\.html)$"),
    Family("lilypond", "music", _each("lilypond-doc-html-{}", "de fr it es ja", "lilypond-doc-html"),
           rf"/lilypond/html/Documentation/(?P<work>(?!snippets|internals|topdocs).+?)(?:\.{_LANG})?\.html$"),
    Family("manual", "manual",
           {**_each("manpages-{}", "de fr it es ru ja", "manpages manpages-dev manpages-posix manpages-posix-dev"),
            **_each("manpages-{}-dev", "de fr it es ru ja")},
           rf"share/man/(?:{_LANG}(?:\.UTF-8)?/)?(?P<work>man\d/[^/]+\.\w+)\.gz$", "manual"),
    Family("anarchism", "essays", _english("anarchism"), r"/anarchism/html/(?P<work>.+\.html)$"),
    Family("python", "programming", _english(r"python3\.\d+-doc"), _PAGES),
    Family("django", "programming", _english("python-django-doc"), _PAGES),
    Family("perl", "programming", _english("perl-doc"), r"/pod/(?P<work>perl\w+)\.pod$", "pod"),
    Family("git", "programming", _english("git-doc"), r"/git-doc/(?P<work>.+\.html)$"),
    Family("gnu", "programming", _english(r"gcc-\d+-doc", "glibc-doc-reference", "bash-doc"),
           r"/(?P<work>[^/]+\.html)$"),
    Family("erlang", "programming", _english("erlang-doc"), r"/erlang-doc/(?P<work>.+/html/.+\.html)$"),
    Family("kernel", "kernel", _english(r"linux-doc-\d+\.\d+"), _PAGES),
    Family("sqlalchemy", "databases", _english("python-sqlalchemy-doc"), _PAGES),
    Family("postgresql", "databases", _english(r"postgresql-doc-\d+"), _PAGES),
    Family("sqlite", "databases", _english("sqlite3-doc"), r"/sqlite3/(?P<work>.+\.html)$"),
    Family("mathematics", "mathematics", _english("octave-doc", "maxima-doc", "r-doc-html"),
           r"/(?P<work>[^/]+/[^/]+\.html)$"),
    Family("dictionary", "dictionary", _english("dict-gcide", "dict-wn", "dict-foldoc", "dict-jargon"),
           r"/dictd/(?P<work>\w+)\.dict\.dz$", "dictionary"),
    Family("rfc", "standards",
           _english(*(f"doc-rfc-{part}" for part in (
               "std", "fyi-bcp", "old-std", "experimental", "misc", "others"))),
           r"/(?P<work>rfc\d+)\.txt\.gz$", "rfc"),
)  # fmt: skip

# Wheels of the Python package index, whose versions are pinned: how each is fetched, and how it is read.
AMAZON = Wheel(
    requirement="botocore==1.44.8",
    filename="botocore-1.44.8-py3-none-any.whl",
    sha256="76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043",
    size=16884815,
)
GOOGLE = Wheel(
    requirement="google-api-python-client==2.202.0",
    filename="google_api_python_client-2.202.0-py3-none-any.whl",
    sha256="aaa90064c9bb642ff1d065b22ca8958a2cb6e345909cefe70d0e5452fc50e08b",
    size=17148227,
)
WHEELS = (
    (Family("amazon", "services", _english("botocore"),
            r"botocore/data/(?P<work>[^/]+)/[^/]+/service-2\.json\.gz$", "service"), AMAZON),
    (Family("google", "services", _english("google-api-python-client"),
            r"discovery_cache/documents/(?P<work>\w+)\.\w+\.json$", "service"), GOOGLE),
)  # fmt: skip

DESCRIPTION_FAMILY = Family(DESCRIPTIONS, "software", {}, "", "descriptions")
FAMILY_NAMES = (*(family.name for family in DEBIAN), DESCRIPTIONS, *(family.name for family, _ in WHEELS))
