"""What each recipe can be told by data.options, known without any data: its type, its meaning, its places.

A place says where something lies on this machine and nothing about what lies there. The same texts in another
folder are the same data, so places are not part of what identifies data; the fingerprint of what was prepared is
(`moe_study.data.fingerprint`).
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import PurePath
from typing import Any

from moe_study.design.data_config import IMAGE_RECIPES, DataConfig
from moe_study.design.plain import from_plain, shown, to_plain
from moe_study.errors import ConfigError

UNKNOWN = "unknown"  # the label of a text that nothing labels
PARLIAMENT_DOMAINS = ("de_parliament", "en_parliament", "es_parliament", "nl_parliament", "en_news")
DOCS_LANGUAGES = ("en", "de", "fr", "it", "es", "ru", "ja")
DOCS_FAMILIES = (
    "handbook", "installation", "reference", "aptitude", "developers", "faq", "policy", "gnome", "libreoffice", "gimp",
    "lilypond", "manual", "anarchism", "python", "django", "perl", "git", "gnu", "erlang", "kernel", "sqlalchemy",
    "postgresql", "sqlite", "mathematics", "dictionary", "rfc", "descriptions", "amazon", "google",
)  # fmt: skip
MOST_BYTES = 2**63 - 1
MOST_TOKEN_IDS = 2**20
_PLACE = {"place": True}


@dataclass(frozen=True)
class NoOptions:
    """Recipes without options: images."""


@dataclass(frozen=True)
class ParliamentNewsOptions:
    """limits: UTF-8 bytes of text to take from a domain, as {"en_news": 6000000}; null: all of it, 0: none."""

    limits: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalFilesOptions:
    """A label is, in this order: the record's field, the name of a folder under `path`, the constant."""

    path: str = field(default="", metadata=_PLACE)
    pattern: str = "**/*"  # glob under path
    text_field: str = "text"
    language_field: str | None = "language"
    topic_field: str | None = "topic"
    folders: tuple[str, ...] = ()  # what the folders under path name, outermost first: language, topic, _
    language: str = UNKNOWN
    topic: str = UNKNOWN
    separator: str | None = None  # cuts .txt files into documents, \n for a line's end; null: one file, one document


@dataclass(frozen=True)
class HubSource:
    """One part of the mix of hub_parquet."""

    files: tuple[str, ...] = ()  # glob patterns of paths in the repository or folder
    repo: str | None = None  # owner/name of a data set on the hub
    revision: str | None = None  # commit; null: the newest when it is first prepared
    folder: str | None = field(default=None, metadata=_PLACE)  # a local folder in the repository's place
    language: str = UNKNOWN
    topic: str = UNKNOWN
    text_field: str = "text"
    language_field: str | None = None
    topic_field: str | None = None
    share: float | None = None  # of data.options.max_bytes, in proportion to the other sources' shares


@dataclass(frozen=True)
class HubParquetOptions:
    """Parquet files of the hub, or of folders laid out alike."""

    sources: tuple[HubSource, ...] = ()
    max_bytes: int | None = None  # UTF-8 bytes of text in all; null: everything


@dataclass(frozen=True)
class PackageDocsOptions:
    """Documentation out of packages of Debian and of the Python package index."""

    languages: tuple[str, ...] = ("en",)  # of DOCS_LANGUAGES
    limits: dict[str, int | None] = field(default_factory=dict)  # UTF-8 bytes of a family's text a language; null: all
    share: float = 1.0  # of the works, evenly: a smaller one is a part of a larger one


def read_options(config: DataConfig) -> Any:
    """The recipe's options as their own type, each in its one spelling; ConfigError for what has no meaning."""
    if config.recipe not in OPTIONS_OF_RECIPES:
        raise ConfigError(f"data.recipe={config.recipe} is unknown; choose one of {', '.join(OPTIONS_OF_RECIPES)}")
    options_type, settle = OPTIONS_OF_RECIPES[config.recipe]
    if options_type is NoOptions and config.options:
        raise ConfigError(f"data.options: {config.name} has no option {next(iter(config.options))}; drop it")
    return settle(from_plain(options_type, config.options, "data.options."))


def check_data_config(config: DataConfig) -> None:
    """Raise ConfigError if this configuration has no meaning; needs neither data nor network."""
    read_options(config)
    name = config.name
    if not name.strip() or name.startswith(".") or set(name) & set("/\0") or len(name) > 100:
        raise ConfigError(f"data.name={name[:100]!r} cannot name a folder; write a short word such as my_texts")
    if not 0 < config.validation_fraction < 1:
        raise ConfigError(
            f"data.validation_fraction={config.validation_fraction} must be between 0 and 1, such as 0.05"
        )
    if config.recipe not in IMAGE_RECIPES and not 257 <= config.tokenizer.size <= MOST_TOKEN_IDS:
        raise ConfigError(
            f"data.tokenizer.vocab_size={config.tokenizer.vocab_size} must be at least 257 (256 bytes and the end of"
            f" a text) and at most {MOST_TOKEN_IDS}"
        )


def identity_options(config: DataConfig) -> dict[str, Any]:
    """The options that say what the data is, in plain types: each in its one spelling, defaults named, no places.

    A recipe that this version does not know has its options as they stand.
    """
    if config.recipe not in OPTIONS_OF_RECIPES:
        return dict(to_plain(config.options))
    return _plain(read_options(config), places=False)


def place_options(config: DataConfig) -> dict[str, Any]:
    """The options that only say where something lies, such as {"path": "/my/texts"}; {} where there are none."""
    if config.recipe not in OPTIONS_OF_RECIPES:
        return {}
    found = _plain(read_options(config), places=True)
    return {name: value for name, value in found.items() if _names_a_place(value)}


def without_defaults(config: DataConfig) -> dict[str, Any]:
    """As `identity_options`, less what stands at its default: an option that is new changes nothing older."""
    return _plain(read_options(config), places=False, defaults=False)


def _plain(options: Any, *, places: bool, defaults: bool = True) -> dict[str, Any]:
    """Options as a dict of either the places or the others; a list of dataclasses as one of such dicts."""
    plain: dict[str, Any] = {}
    for one in fields(options):
        value = getattr(options, one.name)
        if isinstance(value, tuple) and any(is_dataclass(item) for item in value):
            plain[one.name] = [_plain(item, places=places, defaults=defaults) for item in value]
        elif bool(one.metadata.get("place")) == places and (defaults or value != one.default):
            plain[one.name] = to_plain(value)
    return plain


def _names_a_place(value: Any) -> bool:
    if isinstance(value, list):
        return any(_names_a_place(item) for one in value for item in one.values())
    return bool(value)


# What the options mean ---------------------------------------------------------------------------------------


def label_of(text: str) -> str:
    """A label in its one spelling: composed characters, single blanks, none at its ends; "" where it is blank.

    Control characters count as blanks, and so, at its ends, do characters that nobody sees (a zero-width space).
    """
    composed = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()).replace("\ufeff", " ")
    kinds = {character: unicodedata.category(character) for character in composed}
    visible = "".join(" " if kinds[character] == "Cc" else character for character in composed)
    unseen = "".join(character for character, kind in kinds.items() if kind == "Cf")
    return " ".join(visible.split()).strip(f" {unseen}")


def _settle_parliament(read: ParliamentNewsOptions) -> ParliamentNewsOptions:
    _check_limits(read.limits, PARLIAMENT_DOMAINS)
    return ParliamentNewsOptions({domain: read.limits.get(domain) for domain in PARLIAMENT_DOMAINS})


def _check_limits(limits: dict[str, int | None], names: tuple[str, ...]) -> None:
    for name, limit in limits.items():
        if name not in names:
            raise ConfigError(f"data.options.limits: {name} is unknown; there are {', '.join(names)}")
        if limit is not None and not (type(limit) is int and 0 <= limit <= MOST_BYTES):
            raise ConfigError(f"data.options.limits: {name} must be a number of bytes or null, not {shown(limit)}")


def _settle_docs(read: PackageDocsOptions) -> PackageDocsOptions:
    _check_limits(read.limits, DOCS_FAMILIES)
    for language in read.languages:
        if language not in DOCS_LANGUAGES:
            raise ConfigError(
                f"data.options.languages: {language} is unknown; there are {', '.join(DOCS_LANGUAGES)}"
            )
    if "en" not in read.languages:
        raise ConfigError(
            "data.options.languages needs en: what was not translated is told by its standing in English, too"
        )
    if not 0 < read.share <= 1:
        raise ConfigError(f"data.options.share={shown(read.share)} must be above 0 and at most 1, such as 0.2")
    return PackageDocsOptions(
        languages=tuple(one for one in DOCS_LANGUAGES if one in read.languages),
        limits={name: limit for name, limit in sorted(read.limits.items()) if limit is not None},
        share=read.share,
    )


def _settle_local(read: LocalFilesOptions) -> LocalFilesOptions:
    if not read.path.strip() or "\0" in read.path:
        raise ConfigError("data=local_files needs a folder: set data.options.path")
    for name in read.folders:
        if name not in ("language", "topic", "_"):
            raise ConfigError(f"data.options.folders: {name} is unknown; use language, topic or _ (neither)")
    for name in ("language", "topic"):
        if read.folders.count(name) > 1:
            raise ConfigError(f"data.options.folders names {name} twice; use _ for one of them")
    _check_pattern(read.pattern)
    folders = read.folders
    while folders and folders[-1] == "_":
        folders = folders[:-1]
    return replace(
        read,
        path=_tidy(read.path),
        folders=folders,
        language=label_of(read.language) or UNKNOWN,
        topic=label_of(read.topic) or UNKNOWN,
        separator=_separator(read.separator),
    )


def _tidy(path: str) -> str:
    """Without what a shell adds to a folder's name: texts/ and ./texts are texts."""
    return str(PurePath(path))


def _separator(given: str | None) -> str | None:
    """Line ends as one \\n each, as in the text that is cut; a shell passes backslash and n on."""
    if given is None:
        return None
    if given == "":
        raise ConfigError("data.options.separator must not be empty; use null for one document a file")
    for spelled, meant in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\r\n", "\n"), ("\r", "\n")):
        given = given.replace(spelled, meant)
    return given


def _check_pattern(pattern: str) -> None:
    parts = pattern.split("/")
    if not pattern.strip() or "\0" in pattern:
        problem = "is empty"
    elif pattern.startswith("/"):
        problem = "begins with /, but it is looked for below data.options.path"
    elif ".." in parts or "." in parts:
        problem = "holds . or .. between slashes, but nothing outside data.options.path is read"
    elif any("**" in part and part != "**" for part in parts):
        problem = "holds ** beside other characters; between slashes it stands alone"
    else:
        return
    raise ConfigError(f"data.options.pattern={pattern!r} {problem}; write one such as **/*.txt")


def _settle_hub(read: HubParquetOptions) -> HubParquetOptions:
    for problem in _hub_problems(read):
        raise ConfigError(problem)
    return replace(read, sources=tuple(_settle_source(source) for source in read.sources))


def _hub_problems(read: HubParquetOptions) -> Iterator[str]:
    if not read.sources:
        yield "recipe hub_parquet needs data.options.sources, a list with at least one source"
    if read.max_bytes is not None and not 1 <= read.max_bytes <= MOST_BYTES:
        yield f"data.options.max_bytes must be above 0, not {shown(read.max_bytes)}; null takes all"
    for i, source in enumerate(read.sources):
        where = f"data.options.sources[{i}]"
        if (source.repo is None) == (source.folder is None):
            yield f"{where} needs exactly one of repo and folder"
        if not source.files:
            yield f"{where}.files is empty; give patterns such as plain_text/*.parquet"
        if source.share is not None and (not 0 < source.share < float("inf") or read.max_bytes is None):
            yield f"{where}.share must be above 0 and needs data.options.max_bytes"
        if source.share is None and read.max_bytes is not None and len(read.sources) > 1:
            yield f"{where} needs a share, since data.options.max_bytes is set"


def _settle_source(source: HubSource) -> HubSource:
    return replace(
        source,
        folder=None if source.folder is None else _tidy(source.folder),
        files=tuple(sorted(set(source.files))),  # a file is read once, in the order of names
        language=label_of(source.language) or UNKNOWN,
        topic=label_of(source.topic) or UNKNOWN,
    )


OPTIONS_OF_RECIPES: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "parliament_news": (ParliamentNewsOptions, _settle_parliament),
    "hub_parquet": (HubParquetOptions, _settle_hub),
    "local_files": (LocalFilesOptions, _settle_local),
    "package_docs": (PackageDocsOptions, _settle_docs),
    **{name: (NoOptions, lambda read: read) for name in IMAGE_RECIPES},
}

# Names of the options that only say where something lies, in any recipe.
PLACE_NAMES = frozenset(
    option.name
    for options in (HubSource, *(options for options, _ in OPTIONS_OF_RECIPES.values()))
    for option in fields(options)
    if option.metadata.get("place")
)
