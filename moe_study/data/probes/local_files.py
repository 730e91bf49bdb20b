"""local_files: your own .txt files, in sub-folders whose names are labels.

FOLDER/LABEL/*.txt gives each file the label `topic`; FOLDER/LANGUAGE/TOPIC/*.txt gives it `language` and `topic`.
A file is a document. Deeper folders and files of other kinds are refused, so that none is overlooked.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from moe_study.data.probes.base import ProbeDocument, ProbeRecipe, ProbeSource
from moe_study.errors import ConfigError, DataError

LABELS = {1: ("topic",), 2: ("language", "topic")}  # by the number of folders above a file


def _open(path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
    if path is None:
        raise ConfigError("the probe local_files needs a folder: --path FOLDER, with a sub-folder for each label")
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}; --path names one with a sub-folder for each label")
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
    depths = {len(file.relative_to(path).parts) - 1 for file in files}
    if not files or len(depths) > 1 or not depths <= set(LABELS):
        raise DataError(
            f"{path} must hold .txt files in sub-folders named by their label, LABEL/*.txt or LANGUAGE/TOPIC/*.txt, all"
            " equally deep"
        )
    if others := [file for file in files if file.suffix != ".txt"]:
        raise DataError(f"{others[0]} is no .txt file; move it out of {path}")
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(path).as_posix()} {len(content)}\n".encode() + content)
    return ProbeSource(digest.hexdigest(), partial(_documents, path, files))


def _is_hidden(file: Path, path: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(path).parts)


def _documents(path: Path, files: list[Path]) -> Iterator[ProbeDocument]:
    for file in files:
        folders = file.relative_to(path).parts[:-1]
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 text ({error.reason}); convert it") from None
        yield ProbeDocument(text.strip(), dict(zip(LABELS[len(folders)], folders, strict=True)))


RECIPE = ProbeRecipe(version=1, open=_open)
