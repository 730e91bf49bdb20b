"""All that was run in ten lines and two pictures: the top of results/README.md, and a marked block of README.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import Verdict
from moe_study.analysis.format import LEAK_MARK, count
from moe_study.analysis.frame import done
from moe_study.analysis.report import request_of
from moe_study.analysis.results.answered import Answered
from moe_study.analysis.results.forest import Line, forest
from moe_study.analysis.results.headlines import HEADLINES, Against, Headlines, Told, largest_scales, told
from moe_study.analysis.results.papers import by_paper
from moe_study.analysis.results.replication import summary
from moe_study.analysis.results.verdicts import FAILS, HOLDS, OPEN
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.study import Part
from moe_study.errors import DataError

CLAIMS_PICTURE, AGAINST_PICTURE = "claims.svg", "against.svg"
SHOWN = 7  # headlines in words; the picture has all
BEGIN, END = "<!-- results: written by moe-study results -->", "<!-- end of results -->"
KINDS = {HOLDS: "good", FAILS: "bad", OPEN: "open"}


@dataclass(frozen=True)
class InShort:
    """What is said first, and the pictures beside it by the names of their files."""

    lines: tuple[str, ...]
    pictures: dict[str, str]  # file name -> SVG
    alts: dict[str, str]  # file name -> what somebody who does not see it is told

    def block(self, prefix: str = "") -> str:
        """As Markdown; `prefix` leads from the reader's file to results/."""
        images = [f"![{self.alts[name]}]({prefix}{name})" for name in self.pictures]
        return "\n\n".join(["\n".join(self.lines).replace("](", f"]({prefix}"), *images])


def in_short(sweeps: Sequence[Answered], headlines: Headlines) -> InShort:
    """Ten lines and the pictures that the sweeps which were run allow."""
    found = list(told(headlines.headlines, sweeps))
    pictures, alts = {}, {}
    if found:
        pictures[CLAIMS_PICTURE], alts[CLAIMS_PICTURE] = _claims_picture(found), _claims_alt(found)
    if headlines.against and (of := largest_scales(sweeps).get(headlines.against.sweep)):
        lines = list(_against_lines(headlines.against, of))
        pictures[AGAINST_PICTURE] = _against_picture(headlines.against, of, lines)
        listed = "; ".join(f"{line.name} {line.said}" for line in lines)
        alts[AGAINST_PICTURE] = f"{headlines.against.title}: {listed}"
    return InShort(tuple(_lines(sweeps, found)), pictures, alts)


# In words ----------------------------------------------------------------------------------------------------------


def _lines(sweeps: Sequence[Answered], found: Sequence[Told]) -> Iterator[str]:
    yield _what_was_run(sweeps)
    yield from _claims_in_all(sweeps)
    yield ""
    yield from (f"- {_headline(one)}" for one in found[:SHOWN])
    yield ""
    pairs = [pair for one in sweeps if one.replication for pair in one.replication.pairs]
    again = f"Run again from scratch with other seeds, {summary(pairs, where=False)}. " if pairs else ""
    yield f"{again}Every claim, readers' questions and what the papers do not say: [results](README.md)."


def _what_was_run(sweeps: Sequence[Answered]) -> str:
    runs = pd.concat([done(one.archive.frame) for one in sweeps]).drop_duplicates("key")
    low, high = (count(float(end)) for end in (runs["num_params"].min(), runs["num_params"].max()))
    hours = float(runs["train_seconds"].sum()) / 3600
    seeds = sorted({one.seeds for answered in sweeps for one in answered.findings if one.seeds})
    over = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0] if seeds else 0}"
    machines = "; ".join(sorted({name for one in sweeps for name in one.archive.manifest["hardware"]}))
    number = f"{len(sweeps)} sweep{'s' * (len(sweeps) > 1)}"
    pairs = "paired seed" if over == "1" else "paired seeds"
    return (
        f"{number}, {len(runs):,} runs of {low} to {high} parameters, {hours:.1f} hours by the clock "
        f"({machines}); each comparison over {over} {pairs}, in nats per token, with the interval of its test."
    )


def _claims_in_all(sweeps: Sequence[Answered]) -> Iterator[str]:
    papers = by_paper(sweeps)
    findings = [finding for paper in papers for _, finding in paper.claimed]
    if findings:
        holds, fails = (sum(one.verdict == word for one in findings) for word in (HOLDS, FAILS))
        each = "; ".join(f"{paper.name}: {paper.tally}" for paper in papers)
        yield (
            f"Of {len(findings)} claims of the papers {holds} hold at this size, {fails} fail and "
            f"{len(findings) - holds - fails} are undecided or lack runs ({each})."
        )


def _headline(one: Told) -> str:
    name = one.of.archive.name
    said = f"**{one.finding.verdict}**: {one.headline.short}{_leak(one)}: {one.finding.effect}"
    return f"{said} ([{name}]({name}/answers.md))"


def _leak(one: Told) -> str:
    """The mark of what reads later tokens."""
    return f" {LEAK_MARK}" if _leaks(one) else ""


def _leaks(one: Told) -> bool:
    finding = one.finding
    return bool(
        finding.part is not None
        and finding.tested is not None
        and request_of(finding.tested).labels & finding.part.leaking
    )


# In pictures --------------------------------------------------------------------------------------------------------


def _claims_picture(found: Sequence[Told]) -> str:
    margins = {one.finding.tested.margin for one in found if one.finding.tested is not None}
    note = "first minus second, nats per token: left is better for the first; bars: intervals of the tests"
    if any(_leaks(one) for one in found):
        note += "; hollow: reads later tokens"
    margin = margins.pop() if len(margins) == 1 else None
    note += f"; shaded: ±{margin:g}" if margin is not None else ""
    return forest([_claim_line(one) for one in found], "What was claimed, and what came out", note, margin)


def _claim_line(one: Told) -> Line:
    tested = one.finding.tested
    assert tested is not None  # what was not run is not told
    shown = tested.same_interval if tested.verdict is Verdict.SAME else tested.interval
    kind = KINDS.get(one.finding.verdict, "plain")
    mean = tested.difference.mean
    said = f"{mean:+.3f} {_verdict(one)}".replace("-", "−")
    return Line(one.headline.short, mean, shown.low, shown.high, said, kind, _leaks(one))


def _verdict(one: Told) -> str:
    short = {OPEN: "undecided", Verdict.SAME.value: "the same"}
    return short.get(one.finding.verdict, one.finding.verdict)


def _claims_alt(found: Sequence[Told]) -> str:
    listed = "; ".join(f"{one.headline.short}: {_verdict(one)}" for one in found)
    return f"Differences of loss with intervals. {listed}"


def _against_picture(against: Against, of: Answered, lines: Sequence[Line]) -> str:
    note = "means over seeds with 95% intervals, each alone, described and not tested; hollow: reads later tokens"
    title = f"{against.title}: loss minus that of {against.reference}, nats per token ({of.archive.name})"
    return forest(lines, title, note)


def _against_lines(against: Against, of: Answered) -> Iterator[Line]:
    """Every other point of the sweep next to the reference, lowest loss first."""
    part = _part_with(against, of)
    gaps = (part.losses - part.losses.loc[against.reference]).drop(index=against.reference)
    for label in gaps.mean(axis=1).sort_values(kind="stable").index:
        values = gaps.loc[label].dropna().to_numpy(dtype=float)
        if len(values):
            mean, _, low, high = (float(value) for value in t_interval(values))
            leaks = label in part.leaking
            kind = "good" if high < 0 else "bad" if low > 0 else "open"
            said = f"{mean:+.3f}{' reads later tokens' if leaks else ''}".replace("-", "−")
            yield Line(str(label), mean, low, high, said, kind, leaks)


def _part_with(against: Against, of: Answered) -> Part:
    for part in of.study.parts:
        if against.reference in part.losses.index:
            return part
    labels = ", ".join(str(label) for part in of.study.parts for label in part.losses.index)
    raise DataError(f"{HEADLINES}: no point of {against.sweep} is called {against.reference}; there are {labels}")


# In README.md -------------------------------------------------------------------------------------------------------


def with_block(readme: Path, block: str) -> str | None:
    """The text of a file with the block between its marks; None where it has none. DataError for one mark alone."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    marks = np.array([text.count(BEGIN), text.count(END)])
    if not marks.any():
        return None
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if (marks != 1).any() or not found:
        raise DataError(f"{readme} must have {BEGIN} once, and {END} once behind it")
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"
