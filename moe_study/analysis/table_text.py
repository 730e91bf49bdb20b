"""The perplexity table in columns as people read it, with its notes and marks."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from moe_study.analysis.format import (
    APART_MARK,
    BATCH_MARK,
    LEAK_MARK,
    NOTHING,
    count,
    duration,
    number,
    percent,
)
from moe_study.analysis.frame import each
from moe_study.analysis.table import APART
from moe_study.analysis.tables_out import Cells, markdown, plain_text

NOTES = {
    LEAK_MARK: "routing reads later tokens, so this is not an autoregressive perplexity; not ranked",
    BATCH_MARK: "routing reads other sequences of the batch, so the loss depends on what is read together",
    APART_MARK: "lacks seeds that the others have, so it is not ranked with them",
}


def to_text(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table for a terminal, with its notes and `notes` underneath."""
    return plain_text(table_cells(table, notes))


def to_markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """The table as GitHub markdown, with its notes and `notes` underneath."""
    return markdown(table_cells(table, notes))


def table_cells(table: pd.DataFrame, notes: Sequence[str] = ()) -> Cells:
    """The table as people read it, whatever the format; a rule where another standing begins."""
    table = table[table["is_point"]]
    header, rows = _cells(table)
    standings = table["standing"].to_list()
    rules = [place for place in range(1, len(rows)) if standings[place] != standings[place - 1]]
    return Cells(header, rows, [*notes_of(table), *notes], rules=rules)


def marks_by_label(table: pd.DataFrame) -> dict[str, str]:
    """The marks of every point that has some, for other tables that name points."""
    return {row.label: found for row in each(table) if (found := marks(row))}


def _cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    columns, rows = columns_of(table), list(each(table))
    return list(columns), [[cell(row) for cell in columns.values()] for row in rows]


def columns_of(table: pd.DataFrame) -> dict[str, Callable[[Any], str]]:
    """By heading, the text of that cell for a row (as from frame.each) of the table."""
    columns: dict[str, Callable[[Any], str]] = {
        "point": _name,
        "seeds": lambda r: str(r.seeds) if not r.absent else f"{r.seeds} of {r.seeds + r.absent}",
        "loss": lambda r: number(r.loss, "{:.4f}"),
        "perplexity ×/÷ sd": lambda r: f"{number(r.perplexity, '{:.2f}')} {number(r.spread, '×/÷ {:.4f}')}",
        "bits/byte": lambda r: number(r.bits_per_byte, "{:.3f}"),
        "accuracy ± sd": _accuracy,
        f"Δ to {table.attrs['reference']} ±{percent(table.attrs['level'])}": _difference,
        "params": lambda r: count(r.num_params),
        "active": lambda r: count(r.executed_active_params),
        "FLOPs/token": lambda r: count(r.executed_flops_per_token),
        "experts/token": lambda r: number(r.executed_per_token, "{:.2f}"),
        "time": lambda r: duration(r.train_seconds),
        "tokens/s": lambda r: number(r.tokens_per_second, "{:,.0f}"),
    }
    if table["executed_per_token"].isna().all():
        del columns["experts/token"]
    del columns["accuracy ± sd" if table["accuracy"].isna().all() else "bits/byte"]
    return columns


def _name(row: Any) -> str:
    return f"{row.label} {marks(row)}".rstrip()


def marks(row: Any) -> str:
    """The marks that a row of the table carries."""
    held = ((row.leaks, LEAK_MARK), (row.mixes_batch, BATCH_MARK), (row.standing == APART, APART_MARK))
    return "".join(mark for holds, mark in held if holds)


def _accuracy(row: Any) -> str:
    return number(row.accuracy, "{:.2%}") + ("" if math.isnan(row.accuracy_sd) else f" ± {row.accuracy_sd:.2%}")


def _difference(row: Any) -> str:
    if pd.isna(row.pairs) or row.pairs == 0:
        return NOTHING
    if row.pairs == 1:
        return f"{row.difference:+.4f} (1 pair)"
    return f"{row.difference:+.4f} ± {row.difference_high - row.difference:.4f}"


def notes_of(table: pd.DataFrame) -> Iterator[str]:
    """What columns and marks mean."""
    yield (
        "loss: mean over seeds, nats per token; perplexity = exp(loss), its spread over seeds; Δ: of the loss, paired "
        "by seed, each t interval alone (what is decided stands with the answers); FLOPs: forward; active and FLOPs: "
        f"of the expert rows that ran{_nominal_note(table)}{_pairs_note(table)}"
    )
    if table["leaks"].any():
        note = NOTES[LEAK_MARK]
        yield f"{LEAK_MARK} " + (note.split(";")[0] if table.attrs["rank_leaking"] else note)
    if table["mixes_batch"].any():
        yield f"{BATCH_MARK} {NOTES[BATCH_MARK]}"
    if (table["standing"] == APART).any():
        seeds = ", ".join(map(str, table.attrs["seeds"])) or "none"
        yield f"{APART_MARK} {NOTES[APART_MARK]} (ranked on seeds {seeds})"


def _nominal_note(table: pd.DataFrame) -> str:
    """Where executed and nominal FLOPs differ by what can be seen."""
    gap = (table["executed_flops_per_token"] / table["flops_per_token"] - 1).abs()
    parts = [f"{row.label} {count(row.flops_per_token)}" for row in each(table[gap > 0.001])]
    return f" (nominal FLOPs: {', '.join(parts)})" if parts else ""


def _pairs_note(table: pd.DataFrame) -> str:
    unpaired = table[(table["pairs"] < table["seeds"]) & (table["label"] != table.attrs["reference"])]
    parts = [f"{row.label} shares {row.pairs:g} of its {row.seeds} seeds" for row in each(unpaired)]
    return f"; {', '.join(parts)} with the reference" if parts else ""
