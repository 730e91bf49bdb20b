"""Folders as a configuration names them."""

from pathlib import Path

from moe_study.design.config import DataConfig
from moe_study.errors import ConfigError


def folder_at(text: str, option: str) -> Path:
    """The folder that `option` names, ~ replaced by a home; ConfigError where it can be no path."""
    try:
        folder = Path(text).expanduser()
        folder.is_dir()  # raises where the name is too long
    except (RuntimeError, ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{option}={text[:80]} is not a folder ({reason}); correct {option}") from None
    return folder


def data_root(config: DataConfig) -> Path:
    """The folder that holds prepared corpora and downloads."""
    return folder_at(config.root, "data.root")


def downloads_in(root: Path) -> Path:
    """Where pinned files are fetched to."""
    return root / "downloads"
