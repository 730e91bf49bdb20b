"""The perplexity table: every point with its seeds, its spread, its difference to a reference, and its costs.

Points whose routing reads later tokens stand beneath the others, marked, and are not ranked with them unless
asked.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import compare
from moe_study.analysis.format import BATCH_MARK, LEAK_MARK, count, duration
from moe_study.analysis.frame import EXPERT_RATES, done, each, not_done
from moe_study.analysis.pairs import default_reference
from moe_study.analysis.statistics import interval

NOTES = {
    LEAK_MARK: "routing reads later tokens, so this is no autoregressive perplexity; not ranked",
    BATCH_MARK: "routing reads other sequences of the batch, so the loss depends on what is read together",
}
MEANS = (
    "bits_per_byte",
    "accuracy",
    "num_params",
    "num_active_params",
    "flops_per_token",
    *EXPERT_RATES,
    "train_seconds",
    "tokens_per_second",
)


def perplexity_table(
    frame: pd.DataFrame, reference: str | None = None, rank_leaking: bool = False, level: float = 0.95
) -> pd.DataFrame:
    """One row per point of one evaluation set, best loss first, leaking points last.

    Columns: label, seeds (count), loss and loss_sd (nats a token), perplexity = exp(loss), perplexity_low and
    _high (t interval of the loss, exponentiated), spread = exp(loss_sd), difference, difference_low,
    difference_high (nats, paired to the reference) and pairs, MEANS (over seeds), accuracy_sd, leaks, mixes_batch.
    Intervals are NaN for one seed.
    """
    runs = done(frame)
    reference = reference if reference is not None else default_reference(frame)
    labels = list(dict.fromkeys(runs["label"]))
    compared = compare(frame, [(label, reference) for label in labels], level=level)
    rows = []
    for comparison in compared:
        own = runs[runs["label"] == comparison.point]
        loss, d = interval(own["validation_loss"].to_numpy(), level), comparison.difference
        same = comparison.point == reference
        row: dict[str, Any] = {
            "label": comparison.point,
            "seeds": loss.n,
            "loss": loss.mean,
            "loss_sd": loss.sd,
        }
        row["perplexity"] = math.exp(loss.mean)
        row["perplexity_low"], row["perplexity_high"] = np.exp(loss.low), np.exp(loss.high)
        row["spread"] = np.exp(loss.sd)
        row["difference"] = math.nan if same else d.mean
        row["difference_low"], row["difference_high"] = (math.nan, math.nan) if same else (d.low, d.high)
        row["pairs"] = 0 if same else d.n
        row.update({name: own[name].mean() for name in MEANS})
        row["accuracy_sd"] = own["accuracy"].std()
        row.update({name: bool(own[name].any()) for name in ("leaks", "mixes_batch")})
        rows.append(row)
    table = pd.DataFrame(rows)
    order = ["loss", "label"] if rank_leaking else ["leaks", "loss", "label"]
    table = table.sort_values(order).reset_index(drop=True)
    table.attrs.update(reference=reference, level=level, rank_leaking=rank_leaking)
    return table


def to_text(table: pd.DataFrame) -> str:
    """The table for a terminal, with its notes underneath."""
    header, rows = _cells(table)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(header), rule]
    for place, cells in enumerate(rows):
        if _starts_leaking(table, place):
            lines.append(rule)
        lines.append(line(cells))
    return "\n".join([*lines, "", *_notes(table)])


def to_markdown(table: pd.DataFrame) -> str:
    """The table as GitHub markdown, with its notes underneath."""
    header, rows = _cells(table)
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", *(f"{note}  " for note in _notes(table))])


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV with all digits; the notes are the columns leaks and mixes_batch."""
    return table.to_csv(index=False)


def missing_lines(frame: pd.DataFrame) -> list[str]:
    """One line for each run that has no result, with its reason."""
    runs = not_done(frame)
    return [_missing_line(run) for run in each(runs.sort_values(["state", "label", "key"]))]


def _missing_line(run: Any) -> str:
    if run.state == "missing":
        return f"{run.key} was never started"
    name = run.label if run.label == run.key else f"{run.label}, seed {run.seed:g}"
    words = {"failed": "failed", "diverged": "diverged", "stale": "stopped without a word"}
    state = words.get(run.state, f"is {run.state}")
    progress = ""
    if run.state not in ("queued", "damaged") and pd.notna(getattr(run, "step", None)):
        progress = f" at step {run.step:g} of {run.total_steps:g}"
    reason = f": {_first_line(run.error)}" if isinstance(run.error, str) else ""
    return f"{name} ({run.key}) {state}{progress}{reason}"


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    level = f"{table.attrs['level']:.0%}"
    columns: dict[str, Callable[[Any], str]] = {
        "point": _name,
        "seeds": lambda r: str(r.seeds),
        "loss": lambda r: f"{r.loss:.4f}",
        "perplexity ×/÷ sd": lambda r: f"{r.perplexity:.2f} " + _number(r.spread, "×/÷ {:.4f}"),
        "bits/byte": lambda r: _number(r.bits_per_byte, "{:.3f}"),
        "accuracy ± sd": _accuracy,
        f"Δ to {table.attrs['reference']} ±{level}": _difference,
        "params": lambda r: count(r.num_params),
        "active": lambda r: count(r.num_active_params),
        "FLOPs/token": lambda r: count(r.flops_per_token),
        "experts/token": lambda r: _number(r.executed_per_token, "{:.2f}"),
        "time": lambda r: duration(r.train_seconds),
        "tokens/s": lambda r: _number(r.tokens_per_second, "{:,.0f}"),
    }
    if table["executed_per_token"].isna().all():
        del columns["experts/token"]
    del columns["accuracy ± sd" if table["accuracy"].isna().all() else "bits/byte"]
    rows = list(each(table))
    return list(columns), [[cell(row) for cell in columns.values()] for row in rows]


def _name(row: Any) -> str:
    marks = (LEAK_MARK if row.leaks else "") + (BATCH_MARK if row.mixes_batch else "")
    return f"{row.label} {marks}".rstrip()


def _accuracy(row: Any) -> str:
    spread = "" if math.isnan(row.accuracy_sd) else f" ± {row.accuracy_sd:.2%}"
    return _number(row.accuracy, "{:.2%}") + spread


def _difference(row: Any) -> str:
    if row.pairs == 0:
        return "–"
    if row.pairs == 1:
        return f"{row.difference:+.4f} (1 pair)"
    return f"{row.difference:+.4f} ± {row.difference_high - row.difference:.4f}"


def _notes(table: pd.DataFrame) -> list[str]:
    notes = [
        "loss: mean over seeds, nats a token; perplexity = exp(loss), its spread over seeds; "
        f"Δ: of the loss, paired by seed, t interval; FLOPs: forward{_pairs_note(table)}"
    ]
    if table["leaks"].any():
        note = NOTES[LEAK_MARK]
        notes.append(f"{LEAK_MARK} " + (note.split(";")[0] if table.attrs["rank_leaking"] else note))
    if table["mixes_batch"].any():
        notes.append(f"{BATCH_MARK} {NOTES[BATCH_MARK]}")
    return notes


def _pairs_note(table: pd.DataFrame) -> str:
    unpaired = table[(table["pairs"] < table["seeds"]) & (table["label"] != table.attrs["reference"])]
    parts = [f"{row.label} shares {row.pairs} of its {row.seeds} seeds" for row in each(unpaired)]
    return f"; {', '.join(parts)} with the reference" if parts else ""


def _starts_leaking(table: pd.DataFrame, place: int) -> bool:
    leaks = table["leaks"].to_list()
    return not table.attrs["rank_leaking"] and place > 0 and leaks[place] and not leaks[place - 1]


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
