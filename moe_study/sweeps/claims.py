"""Whose claim a comparison of a sweep file tests, and what it would have to show: `source:`, `claim:` and `expect:`.

    source: "2402.13089, Table 1"
    questions: [1]                                  # numbers of readers' questions (results/questions.yaml)
    compare:
      - pair: [{routing: token_top2}, {routing: dense, routing.ffn_multiplier: 4}]
        why: Does token top-2 beat the dense model of equal total parameters?
        claim: "yes, 9.907 against 10.071"          # what the source says, in its own numbers
        expect: lower                               # the loss of the first side: lower, higher, same or not_higher

They change nothing of what is trained or tested; moe-study results sets verdicts beside what was claimed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError
from moe_study.sweeps.comparisons import Question


class Expected(StrEnum):
    """What the loss of the first side is claimed to be, next to that of the second."""

    LOWER = "lower"
    HIGHER = "higher"
    SAME = "same"
    NOT_HIGHER = "not_higher"  # lower, or the same within the margin


OF_FILE = ("source", "questions")
OF_COMPARISON = ("claim", "expect")


@dataclass(frozen=True)
class Claim:
    """What somebody claims of one comparison; of a question that nobody has answered yet, neither text nor outcome."""

    left: str  # both sides in one line each, as the comparison has them
    right: str
    why: str
    says: str = ""
    expect: Expected | None = None


@dataclass(frozen=True)
class Claims:
    """What a sweep file is about."""

    source: str = ""
    questions: tuple[int, ...] = ()
    claims: tuple[Claim, ...] = ()  # of all its comparisons of two sides, in their order


def without_claims(content: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep file's content without what says whose claim it tests."""
    rest = {key: value for key, value in content.items() if key not in OF_FILE}
    if isinstance(rest.get("compare"), list):
        rest["compare"] = [_bare(entry) for entry in rest["compare"]]
    return rest


def read_claims(content: Mapping[str, Any], path: Path) -> Claims:
    """What a sweep file's content says of its claims; ConfigError for what cannot be read.

    Its comparisons have been read already (comparisons.py), so each has its two sides.
    """
    source, numbers = content.get("source") or "", content.get("questions") or []
    if not isinstance(source, str):
        raise ConfigError(f"{path}: source must be a text, such as 2402.13089, Table 1, not {source!r}")
    if not isinstance(numbers, list) or not all(type(number) is int and number > 0 for number in numbers):
        raise ConfigError(f"{path}: questions must be a list of numbers of results/questions.yaml, not {numbers!r}")
    entries = [entry for entry in content.get("compare") or [] if isinstance(entry, list) or "pair" in entry]
    return Claims(" ".join(source.split()), tuple(numbers), tuple(_claim(entry, path) for entry in entries))


def _bare(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key not in OF_COMPARISON}


def _claim(entry: Any, path: Path) -> Claim:
    if isinstance(entry, list):
        entry = {"pair": entry}
    sides = entry["pair"]
    left, right = Question((sides[0], sides[1])).texts
    says, expect = entry.get("claim") or "", entry.get("expect")
    if not isinstance(says, str | int | float):
        raise ConfigError(f"{path}: claim must be a text, what the source says of the comparison, not {says!r}")
    if expect is not None and expect not in list(Expected):
        raise ConfigError(f"{path}: expect: {expect!r} is none of {', '.join(Expected)}")
    if bool(says) != (expect is not None):
        raise ConfigError(f"{path}: claim and expect go together: what the source says of {left}, and what that means")
    why = " ".join(str(entry.get("why") or "").split())
    return Claim(left, right, why, " ".join(str(says).split()), None if expect is None else Expected(expect))
