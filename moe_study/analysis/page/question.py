"""The question that a study asks, as its sweep file puts it: the words above it, and why each comparison is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_study.errors import StudyError
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.scales import split
from moe_study.sweeps.sweep_file import claims_of, find_sweep

MOST_LETTERS = 20_000  # of a sweep file that are shown


@dataclass(frozen=True)
class Question:
    """What is asked, and the file that asks it, where it is known."""

    heading: str
    paragraphs: Sequence[str]  # the first of them says what is asked
    file: str = ""  # the whole text
    source: str = ""  # whose claims it tests, where it says so


def question_of(sweep: str | None, runs: Sequence[Path]) -> Question:
    """The question of a sweep; without one, or without its file, what was read."""
    if sweep is None:
        return Question("Runs", [f"All runs in {', '.join(map(str, runs))}: no sweep was named."])
    try:
        name, _ = split(sweep)  # NAME@SCALE is in the file NAME
        text = find_sweep(name, project_root()).read_text(encoding="utf-8", errors="replace")
        source = claims_of(sweep, project_root()).source
    except (StudyError, OSError):
        return Question(sweep, ["Its sweep file is not there any more, or cannot be read."])
    return Question(sweep, header_paragraphs(text) or ["Its sweep file does not say."], text[:MOST_LETTERS], source)


def header_paragraphs(text: str) -> list[str]:
    """The comment at the top of a sweep file, paragraph by paragraph; indented lines (commands) stay lines."""
    paragraphs: list[str] = []
    fresh = True
    for line in text.lstrip("\ufeff").splitlines():
        if not line.startswith("#"):
            break
        words = line.removeprefix("#").rstrip()
        if not words.strip():
            fresh = True
        elif words.startswith("     ") or fresh:
            paragraphs.append(words.strip())
            fresh = words.startswith("     ")
        else:
            paragraphs[-1] += f" {words.strip()}"
    return paragraphs
