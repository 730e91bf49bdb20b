"""Whose claim a comparison of a sweep file tests, and what it would have to show: `source:`, `claim:` and `expect:`.

    source: "2402.13089, Table 1"
    questions: [1]                                  # numbers of readers' questions (results/questions.yaml)
    compare:
      - pair: [{routing: token_top2}, {routing: dense, routing.ffn_multiplier: 4}]
        why: Does token top-2 beat the dense model of equal total parameters?
        claim: "yes, 9.907 against 10.071"          # what the source says, in its own numbers
        expect: lower                               # the loss of the first side: lower, higher, same or not_higher
      - effect: [unit, k]
        claim: "a second expert helps sequences more"
        expect: lower                               # the number itself: what the second setting adds to the first's
      - reach: [{routing: xmoe_budget}, {routing: token_top1}]
        by: expert_flops
        claim: "half of them"
        at_most: 0.5                                # in place of expect: the share of the second side's cost

An effect is a number too: of one setting, the loss at a later value minus that at the first; of two, by how much the
change of the first differs at a later value of the second. A setting with more values has several, and a claim is of
each. A trend is the change of a difference per doubling of size. A cost at equal loss (reach) is described beside its
claim, and has no verdict. They change nothing of what is trained or tested; moe-study results sets verdicts beside what
was claimed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError
from moe_study.sweeps.comparisons import AnyQuestion, Question, read_questions
from moe_study.sweeps.reaches import ReachQuestion


class Expected(StrEnum):
    """What the loss of the first side is claimed to be, next to that of the second; of an effect, next to none."""

    LOWER = "lower"
    HIGHER = "higher"
    SAME = "same"
    NOT_HIGHER = "not_higher"  # lower, or the same within the margin


OF_FILE = ("source", "questions")
OF_COMPARISON = ("claim", "expect")


@dataclass(frozen=True)
class Claim:
    """What somebody claims of one comparison; of a question that nobody has answered yet, neither text nor outcome."""

    left: str  # both sides in one line each, as the comparison has them; of an effect or trend its text, and no right
    right: str
    why: str
    says: str = ""
    expect: Expected | None = None
    at: str = ""  # the cost at which the two are compared

    def is_of(self, written: str) -> bool:
        """Whether a request, as the sweep file has it (`written` in analysis), is what the claim is about."""
        if not self.right:
            return written == self.left or written.startswith(f"{self.left}: ")
        return written == f"{self.left} against {self.right}{f' at {self.at}' if self.at else ''}"


@dataclass(frozen=True)
class Claims:
    """What a sweep file is about."""

    source: str = ""
    questions: tuple[int, ...] = ()
    claims: tuple[Claim, ...] = ()  # of all that it asks to compare, in its order
    reaches: tuple[Claim, ...] = ()  # of costs at equal loss, which are not tested


def without_claims(content: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep file's content without what says whose claim it tests."""
    rest = {key: value for key, value in content.items() if key not in OF_FILE}
    if isinstance(rest.get("compare"), list):
        rest["compare"] = [_bare(entry) for entry in rest["compare"]]
    return rest


def read_claims(content: Mapping[str, Any], path: Path) -> Claims:
    """What a sweep file's content says of its claims; ConfigError for what cannot be read."""
    source, numbers = content.get("source") or "", content.get("questions") or []
    if not isinstance(source, str):
        raise ConfigError(f"{path}: source must be a text, such as 2402.13089, Table 1, not {source!r}")
    if not isinstance(numbers, list) or not all(type(number) is int and number > 0 for number in numbers):
        raise ConfigError(f"{path}: questions must be a list of numbers of results/questions.yaml, not {numbers!r}")
    questions = read_questions(without_claims(content), path)
    entries = list(zip(content.get("compare") or [], questions, strict=True))
    claims, reaches = (
        tuple(
            claim
            for entry, question in entries
            if isinstance(question, ReachQuestion) is described
            for claim in _claims(entry, question, path)
        )
        for described in (False, True)
    )
    return Claims(" ".join(source.split()), tuple(numbers), claims, reaches)


def _bare(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in entry.items() if key not in OF_COMPARISON}


def _claims(entry: Any, question: AnyQuestion, path: Path) -> Iterator[Claim]:
    """One for each number that an entry of compare asks for; of an effect, one for all of its numbers."""
    entry = entry if isinstance(entry, dict) else {}
    if isinstance(question, ReachQuestion):
        yield from _claims_of_reach(entry, question, path)
        return
    says, expect = _says_and_expects(entry, question, path)
    if not isinstance(question, Question):
        yield Claim(question.text, "", question.why, says, expect)
        return
    for cost in question.at or ("",):
        yield Claim(*question.texts, question.why, says, expect, cost)


def _claims_of_reach(entry: Mapping[str, Any], question: ReachQuestion, path: Path) -> Iterator[Claim]:
    """One for each cost."""
    says = _says(entry, path)
    if "expect" in entry:
        raise ConfigError(f"{path}: expect is of a comparison; {question.text} has at_most: (a share of its cost)")
    if bool(says) != (question.at_most is not None):
        raise ConfigError(f"{path}: claim and at_most go together: what the source says of {question.text}, as a share")
    for text in question.identities:
        yield Claim(text, "", question.why, says)


def _says_and_expects(entry: Mapping[str, Any], question: AnyQuestion, path: Path) -> tuple[str, Expected | None]:
    says, expect = _says(entry, path), entry.get("expect")
    if expect is not None and expect not in list(Expected):
        raise ConfigError(f"{path}: expect: {expect!r} is none of {', '.join(Expected)}")
    if bool(says) != (expect is not None):
        what = question.texts[0] if isinstance(question, Question) else question.text
        raise ConfigError(f"{path}: claim and expect go together: what the source says of {what}, and what that means")
    return says, None if expect is None else Expected(expect)


def _says(entry: Mapping[str, Any], path: Path) -> str:
    """What the source says, in one line."""
    says = entry.get("claim") or ""
    if not isinstance(says, str | int | float):
        raise ConfigError(f"{path}: claim must be a text, what the source says of the comparison, not {says!r}")
    return " ".join(str(says).split())
