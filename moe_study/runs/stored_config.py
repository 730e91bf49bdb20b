"""A run's config.yaml: what it was trained with, as the version of that day wrote it."""

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import yaml

from moe_study.design.config import RunConfig, read_record
from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.files import write_text_atomic

SECTIONS = ("model", "routing", "data", "optimizer", "run")  # what makes a run's identity
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it
_NEXT_SECTION = re.compile(r"^(?=\S)", re.MULTILINE)  # what is not indented begins a key of the outermost mapping
_SECTION = re.compile(r"[a-z_]+:\s")


def read_plain(path: Path) -> dict[str, Any]:
    """The configuration as nested plain values, of whichever version; DataError names a file that is not one."""
    try:
        plain = _parsed(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: it is not YAML; restore it, or move {path.parent} away") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(plain, dict) or not all(isinstance(plain.get(name), dict) for name in SECTIONS):
        raise DataError(
            f"{path} is damaged: it lacks one of the sections {', '.join(SECTIONS)}; restore it, or move"
            f" {path.parent} away"
        )
    return plain


def _parsed(text: str) -> Any:
    """The file's content, section by section: the runs of a sweep have most of them word for word in common.

    Where a section does not stand by itself (an alias, quotes over several lines, a tag), the text is read whole.
    """
    sections = [section for section in _NEXT_SECTION.split(text) if section]
    if sections and all(_SECTION.match(section) for section in sections):
        try:
            return {name: value for section in sections for name, value in pickle.loads(_section(section)).items()}
        except yaml.YAMLError:
            pass  # read whole, an error has its place in the file
    return yaml.load(text, Loader=_Loader)


@functools.lru_cache(maxsize=4096)
def _section(text: str) -> bytes:
    """The mapping of one name that a section is, pickled, so that every run has values of its own."""
    return pickle.dumps(yaml.load(text, Loader=_Loader))


def read(path: Path) -> RunConfig:
    """The typed configuration; StudyError names a file that is damaged or of a version that this one cannot read.

    Of an older run, every setting has the value that it was trained with, whatever the default is today.
    """
    try:
        return read_record(read_plain(path))
    except ConfigError as error:
        raise StudyError(f"{path} does not fit this version of moe_study: {error}") from error


def write(path: Path, config: RunConfig) -> None:
    """Write `config` unless it is there already; StudyError if the file is of another configuration."""
    if not path.exists():
        return write_text_atomic(path, yaml.safe_dump(to_plain(config), sort_keys=False))
    stored = read(path).key
    if stored != config.key:
        raise StudyError(f"{path} was changed and now belongs to key {stored}; restore it, or move {path.parent} away")
    return None
