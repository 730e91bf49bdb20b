"""What readers of the papers ask (results/questions.yaml), answered by what is kept in results/.

    2:
      asks: Does collapse hurt unseen domains and downstream tasks?
      read:                                          # from which sweeps an answer is read, and from what of each
        design/fig1_balance: [comparisons]
        open/collapse_transfer: [comparisons, tokens-brown/unseen]
      needs_scale: Downstream tasks, on which models of this size end at chance.
      lacks: What the design space does not have yet.

`comparisons` are those that the sweep's file states, `costs` sets FLOPs and seconds beside every point's loss,
`equal_loss` says what the file asks at equal loss (reach:); all else are measures (see measure.py), here on the probe
brown, in the reading "unseen". A sweep whose own file names the number is read, too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_study.analysis.comparison import Verdict
from moe_study.analysis.format import count, duration
from moe_study.analysis.frame import each
from moe_study.analysis.results.answered import Answered
from moe_study.analysis.results.measures import find_measure, read_answer
from moe_study.analysis.results.verdicts import FAILS, HOLDS, OPEN, Finding, share_decided
from moe_study.analysis.study import Study
from moe_study.errors import DataError
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split
from moe_study.sweeps.values import read_yaml

QUESTIONS = "questions.yaml"
COMPARISONS, COSTS, EQUAL_LOSS = "comparisons", "costs", "equal_loss"
OF_STUDY = (COMPARISONS, COSTS, EQUAL_LOSS)  # what is read of the study itself
FORM = "a number with asks: (the question) and, where they apply, read:, needs_scale: and lacks:"
KEYS = ("asks", "read", "needs_scale", "lacks")
VERDICTS = (HOLDS, FAILS, Verdict.LOWER.value, Verdict.HIGHER.value, Verdict.SAME.value, OPEN)  # as they are counted


@dataclass(frozen=True)
class ReadersQuestion:
    """One question, and where its answer stands."""

    number: int
    asks: str
    read: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by sweep, without its scale
    needs_scale: str = ""
    lacks: str = ""


def read_readers_questions(path: Path) -> list[ReadersQuestion]:
    """The questions of a file; DataError says what is wrong in it."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must map numbers to questions, each {FORM}")
    return [_question(number, entry, path) for number, entry in content.items()]


def _question(number: Any, entry: Any, path: Path) -> ReadersQuestion:
    if not str(number).isdigit() or not isinstance(entry, dict) or not entry.get("asks") or set(entry) - set(KEYS):
        raise DataError(f"{path}: {number} must be {FORM}")
    read = entry.get("read") or {}
    if not isinstance(read, dict) or not all(isinstance(of, list) and of for of in read.values()):
        raise DataError(f"{path}: read of {number} must map sweeps to lists, as in open/gate: [{COMPARISONS}]")
    try:
        for written in (str(one) for of in read.values() for one in of if one not in OF_STUDY):
            find_measure(written)
    except DataError as error:
        raise DataError(f"{path}: {number}: {error}") from error
    texts = {key: " ".join(str(entry.get(key) or "").split()) for key in ("asks", "needs_scale", "lacks")}
    return ReadersQuestion(int(number), read={str(sweep): tuple(map(str, of)) for sweep, of in read.items()}, **texts)


def question_block(question: ReadersQuestion, sweeps: Sequence[Answered], planned: Mapping[str, Claims]) -> str:
    """A question with what is known of it, as an item of a numbered list.

    `planned`: all committed sweeps by name, so that what was not run yet is named, too.
    """
    named = [name for name, claims in planned.items() if question.number in claims.questions]
    read = {**question.read, **{name: (COMPARISONS,) for name in named if name not in question.read}}
    lines, found = [], []
    for name, what in read.items():
        own = [one for one in sweeps if split(one.archive.name)[0] == name]
        lines += [line for one in own for line in _of_sweep(one, what)]
        found += [finding for one in own if COMPARISONS in what for finding in one.findings]
        if not own:
            lines.append(f"- {name} was not run yet: `python train.py -m +sweep={name} scale=cpu`")
    if question.needs_scale:
        lines.append(f"- Needs scale: {question.needs_scale}")
    if question.lacks:
        lines.append(f"- {question.lacks}")
    head = f"{question.number}. "
    lead = " ".join([f"{head}**{question.asks}**", *_in_all(found)])
    return "\n".join([lead, *(" " * len(head) + line for line in lines)])


def _in_all(found: Sequence[Finding]) -> Iterator[str]:
    """How often each verdict came out, of what somebody claims and of all else: a sentence each."""
    claimed = Counter(one.verdict for one in found if one.claim.expect is not None)
    others = Counter(one.verdict for one in found if one.claim.expect is None)
    for what, counts in (("Claims", claimed), ("Other comparisons", others)):
        if counts:
            told = sorted(counts, key=lambda verdict: VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS))
            yield f"{what}: {', '.join(f'{counts[verdict]} × {verdict}' for verdict in told)}."


def _of_sweep(one: Answered, what: Sequence[str]) -> Iterator[str]:
    name = one.archive.name
    decided = f": {share_decided(one.findings)} decided" if COMPARISONS in what and one.findings else ""
    yield f"- [{name}]({name}/answers.md){decided}"
    for written in what:
        if written == COMPARISONS:
            yield from (f"  - {finding.told(finding.claim.why)}" for finding in one.findings)
        elif written == COSTS:
            yield from (f"  - {line}" for line in _costs(one.study))
        elif written == EQUAL_LOSS:
            yield from (f"  - {reach.in_short}" for reach in one.reached)
        else:
            yield from (f"  {line}" for line in read_answer(written, one.archive.folder, one.study, name))


def _costs(study: Study) -> Iterator[str]:
    """Every point, lowest loss first, with what it costs; points that read later tokens carry their mark."""
    for part in study.parts:
        known = part.table.dropna(subset=["loss"]).sort_values("loss", kind="stable")
        points = [
            f"{part.marked(row.label)} {row.loss:.3f} "
            f"({count(row.executed_flops_per_token)}, {duration(row.train_seconds)})"
            for row in each(known)
        ]
        where = f" on {part.name}" if part.name else ""
        yield f"Lowest mean loss first{where} (executed FLOPs per token, training time): {'; '.join(points)}"
