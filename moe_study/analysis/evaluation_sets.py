"""Runs by what their losses were measured on: only losses of one evaluation set can be compared."""

from collections.abc import Iterator

import pandas as pd

from moe_study.analysis.frame import done, not_done
from moe_study.analysis.labels import add_labels

TEXT_SETTINGS = ("model.context", "run.eval_tokens")  # and all of data.: what losses are measured on


def evaluation_sets(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) for each evaluation set, labelled anew; the name is empty when there is only one.

    Runs without a result stand with the set whose text they would be evaluated on; those of which that is not known,
    or which have no such set, with every set.
    """
    runs, without = done(frame), not_done(frame)
    texts = _texts(frame)
    keys = runs["evaluation"].dropna().unique()
    one = len(keys) == 1 and runs["evaluation"].notna().all()
    sets = {str(key): runs if one else runs[runs["evaluation"] == key] for key in keys}
    text_of = {key: set(texts[part.index]) for key, part in sets.items()}
    homeless = ~texts[without.index].isin(set().union(*text_of.values()))
    names = {key: str(part["data.name"].iloc[0]) for key, part in sets.items()}
    for key in sorted(sets, key=lambda key: (names[key], key)):
        shared = list(names.values()).count(names[key]) > 1
        name = f"{names[key]}-{key[:6]}" if shared else names[key]
        own = without[texts[without.index].isin(text_of[key]) | homeless]
        part = add_labels(pd.concat([sets[key], own]).sort_index() if len(own) else sets[key])
        yield (name if len(sets) > 1 else ""), part


def _texts(frame: pd.DataFrame) -> "pd.Series[str]":
    """What decides, of a run's configuration, on which text its loss is measured."""
    columns = [c for c in frame if str(c).startswith("data.") and c != "data.root"] + list(TEXT_SETTINGS)
    known = frame.reindex(columns=columns)
    return pd.Series(map(repr, known.itertuples(index=False, name=None)), frame.index, dtype=str)
