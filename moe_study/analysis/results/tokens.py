"""results/NAME/tokens-PROBE: where the loss and the work of a sweep's runs lie on a probe, token by token."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import Comparison, as_one_family, untested
from moe_study.analysis.results.intervals import by_seed, extremes_text, group_cells, interval_text
from moe_study.analysis.results.measure import Kept, Measure, finished_runs
from moe_study.analysis.results.probe_traces import TraceOf, traces_by_probe
from moe_study.analysis.results.verdicts import Finding
from moe_study.analysis.specialisation.by_token import FREQUENCY, HARDNESS, POSITION, by_token
from moe_study.analysis.study import Part, Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.sweeps.claims import Claim

SPREAD = 1e-6  # experts per token that differ by less are one number
GROUPS = ("by", "place", "name")


# From the runs ----------------------------------------------------------------------------------------------------


def collect(study: Study) -> dict[str, pd.DataFrame]:
    """Rows by probe, of every probe that most runs have read."""
    return {probe: token_rows(study, trace_of) for probe, trace_of in traces_by_probe(study).items()}


def token_rows(study: Study, trace_of: TraceOf) -> pd.DataFrame:
    """Groups of tokens (specialisation/by_token.py) of every finished run that has a trace."""
    parts = []
    for run in finished_runs(study.parts):
        if (trace := trace_of(run.folder.path)) is not None:
            found = by_token(trace)
            parts.append(pd.concat([pd.DataFrame([run.place_in_part] * len(found)), found], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


# The table --------------------------------------------------------------------------------------------------------


def tokens_text(kept: Kept) -> str:
    """What the rows say: each planned comparison on the whole probe and by group of tokens, and experts per token."""
    blocks = [
        f"# Token by token, on the probe {kept.of}",
        f"Every run read {_tokens_read(kept.rows)} tokens. Differences are of the loss of predicting tokens, in nats "
        "per token, the first point minus the second, paired by seed.",
    ]
    if found := on_the_whole_probe(kept):
        rows = [[one.claim.why, one.pair, one.effect, one.verdict, str(one.seeds)] for one in found]
        cells = Cells(["question", "test", "difference", "verdict", "seeds"], rows, text_columns=(0, 1, 3))
        family = "The sweep's comparisons on the whole probe, tested as one family (Holm):"
        blocks += ["## On texts that no run trains on", family, markdown(cells).rstrip()]
    blocks += [f"{sentence}." for sentence in unread(kept)]
    blocks += ["Below are means over seeds with 95% intervals, described and not tested."]
    for part, comparison in _comparisons(kept.study):
        cells = _difference(_of_part(kept, part), comparison)
        if cells.rows:
            where = f", {part.name}" if part.name else ""
            blocks += [f"## {_pair(comparison, part)}{where}", markdown(cells).rstrip()]
    for part in kept.study.parts:
        blocks += _work(_of_part(kept, part), part)
    if sentences := list(hardness(kept)):
        blocks += ["## Do harder tokens get more experts?", "\n".join(f"- {sentence}" for sentence in sentences)]
    return "\n\n".join(blocks) + "\n"


def _tokens_read(rows: pd.DataFrame) -> str:
    """How many tokens of the probe, in words; runs of several windows can differ by a few."""
    by_run = rows[rows["by"] == POSITION].groupby("key")["tokens"].sum()
    fewest, most = int(by_run.min()), int(by_run.max())
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _comparisons(study: Study) -> Iterator[tuple[Part, Comparison]]:
    return ((part, comparison) for part in study.parts for comparison in part.comparisons)


def _pair(comparison: Comparison, part: Part) -> str:
    return f"{part.marked(comparison.point)} − {part.marked(comparison.against)}"


def _of_part(kept: Kept, part: Part) -> pd.DataFrame:
    return kept.rows[kept.rows["part"] == part.name]


def _paired(rows: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """Differences of loss, groups of tokens down and seeds across."""
    left, right = (_of_label(rows, label, "loss") for label in (comparison.point, comparison.against))
    seeds = left.columns.intersection(right.columns)
    return (left[seeds] - right[seeds]).dropna() if len(seeds) > 1 else left.iloc[:0]


def _difference(rows: pd.DataFrame, comparison: Comparison) -> Cells:
    paired = _paired(rows, comparison)
    shown = group_cells(paired[paired.index.get_level_values("by") != HARDNESS])
    return Cells(["by", "tokens", f"difference ({paired.shape[1]} seeds)"], shown, text_columns=(0, 1))


def _work(rows: pd.DataFrame, part: Part) -> Iterator[str]:
    """Points whose tokens have different numbers of experts."""
    for label, work in _varying(rows):
        header = ["by", "tokens", f"experts per token ({work.shape[1]} seeds)"]
        yield f"## Experts per token of {part.marked(label)}"
        yield markdown(Cells(header, group_cells(work, ""), text_columns=(0, 1))).rstrip()


def _varying(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(label, experts per token with groups down and seeds across) of points whose tokens differ in them."""
    for label in dict.fromkeys(rows["label"]):
        work = _of_label(rows, label, "experts").dropna()
        if len(work) and np.ptp(work.to_numpy()) >= SPREAD:
            yield str(label), work


def _of_label(rows: pd.DataFrame, label: str, value: str) -> pd.DataFrame:
    return by_seed(rows[rows["label"] == label], value, GROUPS)


# The sentences ----------------------------------------------------------------------------------------------------


def on_the_whole_probe(kept: Kept) -> list[Finding]:
    """The sweep's comparisons with the loss on the probe in the place of the validation loss, as one family."""
    measured, parts = [], []
    for part, comparison, loss in _with_losses(kept):
        if {comparison.point, comparison.against} <= set(loss.index):
            both = loss.loc[[comparison.point, comparison.against]].dropna(axis=1).to_numpy()
            values = untested(both[0] - both[1], comparison.margin, comparison.difference.level)
            measured.append(replace(comparison, **values, family=0))
            parts.append(part)
    tested = as_one_family(measured)
    return [
        Finding(Claim(c.point, c.against, c.asked.question), part, c) for part, c in zip(parts, tested, strict=True)
    ]


def _with_losses(kept: Kept) -> Iterator[tuple[Part, Comparison, pd.DataFrame]]:
    """Each planned comparison with the losses of its part on the whole probe."""
    for part in kept.study.parts:
        loss = whole_loss(_of_part(kept, part))
        yield from ((part, comparison, loss) for comparison in part.comparisons)


def whole_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss over all predicted tokens of the probe, points (labels) down and seeds across."""
    own = rows[(rows["by"] == POSITION) & (rows["predicted"] > 0)]
    sums = own.assign(total=own["loss"] * own["predicted"]).groupby(["label", "seed"])[["total", "predicted"]].sum()
    mean: pd.DataFrame = (sums["total"] / sums["predicted"]).unstack("seed")
    return mean


def unseen(kept: Kept) -> Iterator[str]:
    """Each planned comparison on the probe: what the validation loss says, said of texts that no run trains on."""
    for one in on_the_whole_probe(kept):
        yield one.told(f"On texts of {kept.of}, which no run trains on:")
    yield from unread(kept)


def unread(kept: Kept) -> Iterator[str]:
    """A sentence where not all runs of the planned comparisons have read the probe."""
    lacking = []
    for part, comparison, loss in _with_losses(kept):
        both = [comparison.point, comparison.against]
        of_both = (losses.reindex(both).notna().all() for losses in (loss, part.losses))
        read, trained = (int(known.sum()) for known in of_both)
        if read < trained:
            lacking.append(f"{_pair(comparison, part)} ({read} of {trained} seeds)")
    if lacking:
        yield f"Not all runs have read {kept.of}, which moe-study results --probe {kept.of} mends: {'; '.join(lacking)}"


def by_group(kept: Kept) -> Iterator[str]:
    """Where each planned difference lies: at early and late positions, at frequent and rare tokens."""
    for part, comparison in _comparisons(kept.study):
        paired = _paired(_of_part(kept, part), comparison)
        ends = [text for by in (POSITION, FREQUENCY) if (text := _ends(paired, by))]
        if ends:
            yield f"{_pair(comparison, part)}, on {kept.of}: {'; '.join(ends)}"
    yield from unread(kept)


def _ends(wide: pd.DataFrame, by: str, sign: str = "+") -> str:
    """The first and the last group of `by`."""
    own = wide[wide.index.get_level_values("by") == by]
    if len(own) < 2:
        return ""
    names = own.index.get_level_values("name").astype(str)
    head = f"{by} " if by == POSITION else ""
    return " and ".join(f"{interval_text(own.iloc[i].to_numpy(), sign)} at {head}{names[i]}" for i in (0, -1))


def hardness(kept: Kept) -> Iterator[str]:
    """Whether harder tokens get more experts: a sentence for each point whose tokens have different numbers of them."""
    for part in kept.study.parts:
        for label, work in _varying(_of_part(kept, part)):
            tenths = work[work.index.get_level_values("by") == HARDNESS].to_numpy(dtype=float)
            if len(tenths) > 1:
                more, easiest = interval_text(tenths[-1] - tenths[0]), interval_text(tenths[0], "")
                yield (
                    f"{part.marked(label)}: {more} experts more where the next token is hardest to predict than where "
                    f"it is easiest ({easiest} there){_extremes(work)}"
                )


def _extremes(work: pd.DataFrame) -> str:
    """Which values of position and of each label have the most and the fewest experts."""
    means = work.mean(axis=1).droplevel("place")
    ways = (by for by in dict.fromkeys(means.index.get_level_values("by")) if by != HARDNESS)
    return extremes_text({str(by): means.xs(by, level="by") for by in ways})


MEASURE = Measure(
    "tokens",
    "token by token, on {of}",
    "moe-study results --sweep {sweep}{probe}",
    collect,
    tokens_text,
    {"": by_group, "hardness": hardness, "unseen": unseen},
)
