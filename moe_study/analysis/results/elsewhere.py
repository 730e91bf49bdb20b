"""results/NAME/elsewhere and elsewhere-PROBE: which tokens a router sends elsewhere than one by language would.

Asked of sweeps that have such a router, the oracle, among their points, and of the runs that were trained on the same
data, where tokens go without some experts. Each language gets an expert of its own, so that as many tokens as possible
have it among their picks (the Hungarian method), which need not be the one that most of its own tokens take; all others
go elsewhere, and so does what a capacity dropped. With more languages than experts some get none, and all of their
tokens go elsewhere. The oracle of the sweep itself may share an expert among languages (model/moe/routing/router.py);
nobody is held against that. Two texts tell it:

- the validation set, in the languages of training, from the counts that every run keeps (RUN/routing.parquet); by
  chance: if every expert took its load from all languages alike;
- a probe with languages, token by token, so that position and frequency can be asked, too; by chance: with the
  languages dealt out anew over the documents, since tokens of one document are not exchangeable.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize

from moe_study.analysis.format import with_leak_mark
from moe_study.analysis.frame import Row
from moe_study.analysis.records import records
from moe_study.analysis.results.intervals import MOST_VALUES, by_seed, extremes_text, group_cells, interval_text
from moe_study.analysis.results.measure import Kept, Measure, finished_runs
from moe_study.analysis.results.probe_traces import TraceOf, traces_by_probe
from moe_study.analysis.specialisation.by_token import FREQUENCY, POSITION, frequency_label
from moe_study.analysis.specialisation.exchanges import DocumentExchange
from moe_study.analysis.specialisation.layer_trace import Ints, LayerTrace, position_label
from moe_study.analysis.study import Part, Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.design.routing import Context, RouterState
from moe_study.design.selections import SELECTIONS
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace

LANGUAGE, TOPIC, ALL = "language", "topic", "all"
DRAWS = 99  # of the null
GROUPS = ("layer", "by", "place", "name")

Floats = NDArray[np.float64]


# From the runs ----------------------------------------------------------------------------------------------------


def collect(study: Study) -> dict[str, pd.DataFrame]:
    """Rows of the validation set ("") and by probe, of the parts of a study in which some point is routed by language.

    A row for each run, layer and group of tokens.
    """
    parts = [part for part in study.parts if any(map(_is_oracle, records(part.runs)))]
    if not parts:
        return {}
    by_probe = {probe: _rows(parts, _of_trace(trace_of)) for probe, trace_of in traces_by_probe(study).items()}
    return {"": _rows(parts, _of_validation), **by_probe}


def _is_oracle(run: Row) -> bool:
    return bool(run["routing.context"] == Context.LABEL and run["routing.label"] == LANGUAGE)


def _rows(parts: list[Part], rows_of_run: Callable[[RunFolder], Iterator[dict[str, Any]]]) -> pd.DataFrame:
    found: list[dict[str, Any]] = []
    for run in finished_runs(parts):
        if run.row["routing.context"] != Context.LABEL and SELECTIONS[run.row["routing.selection"]].leaves_out:
            found += [{**run.place_in_part, **row} for row in rows_of_run(run.folder)]
    return pd.DataFrame(found)


def _of_validation(folder: RunFolder) -> Iterator[dict[str, Any]]:
    counts = folder.read_activations()
    if counts is not None:
        for layer, own in counts.groupby("layer"):
            yield from rows_of_counts(own, int(str(layer)))


def _of_trace(trace_of: TraceOf) -> Callable[[RunFolder], Iterator[dict[str, Any]]]:
    def rows(folder: RunFolder) -> Iterator[dict[str, Any]]:
        trace = trace_of(folder.path)
        if trace is not None and LANGUAGE in trace.document_labels:
            for layer in trace.layers:
                yield from rows_of_layer(trace, layer)

    return rows


def rows_of_counts(counts: pd.DataFrame, layer: int) -> Iterator[dict[str, Any]]:
    """As rows_of_layer, from the activations of one layer (runs/activations.py): of all, by language and by topic."""
    pairs = counts.groupby([LANGUAGE, TOPIC, "expert"])["count"].sum().unstack("expert", fill_value=0)
    tokens = counts.groupby([LANGUAGE, TOPIC])["tokens"].first()
    has_GE, tokens_G = pairs.to_numpy(dtype=float), tokens.to_numpy(dtype=float)
    codes_G, values = pd.factorize(pairs.index.get_level_values(LANGUAGE), sort=True)
    expert_L = matched_experts(codes_G, has_GE, len(values))
    own_G = expert_L[codes_G]
    here_G = np.where(own_G >= 0, has_GE[np.arange(len(own_G)), own_G], 0.0)
    total = float(tokens_G.sum())
    even_GE = tokens_G[:, None] * has_GE.sum(axis=0) / total
    chance = _share(codes_G, even_GE, len(values), int(total))
    whole = {"tokens": int(total), "elsewhere": 1 - float(here_G.sum()) / total, "chance": chance}
    yield {"layer": layer, "by": ALL, "place": 0, "name": "", **whole, "p": np.nan}
    for by in (LANGUAGE, TOPIC):
        groups_G = pairs.index.get_level_values(by)
        for place, name in enumerate(sorted(set(groups_G))):
            in_G = groups_G == name
            share = 1 - float(here_G[in_G].sum() / tokens_G[in_G].sum())
            group = {"tokens": int(tokens_G[in_G].sum()), "elsewhere": share, "chance": np.nan, "p": np.nan}
            yield {"layer": layer, "by": by, "place": place, "name": str(name), **group}


def rows_of_layer(trace: Trace, layer: int) -> Iterator[dict[str, Any]]:
    """Share of tokens that one layer sends elsewhere: of all (with its chance and p value), and group by group.

    Nothing where no document has a language.
    """
    routes = LayerTrace(**trace.layer(layer))
    codes_D, values = routes.document_label(LANGUAGE)
    has_TE = np.zeros((len(routes.token_T), routes.experts), dtype=bool)
    kept_P = np.asarray(routes.kept_P)
    has_TE[routes.token_of_P[kept_P], routes.expert_P[kept_P]] = True
    has_DE = np.zeros((routes.documents, routes.experts))
    np.add.at(has_DE, routes.document_T, has_TE)
    expert_L = matched_experts(codes_D, has_DE, len(values))
    code_T = codes_D[routes.document_T]
    known_T = code_T >= 0
    if not known_T.any():
        return
    own_T = expert_L[code_T]
    elsewhere_T = ~((own_T >= 0) & has_TE[np.arange(len(own_T)), own_T])
    share = float(elsewhere_T[known_T].mean())
    exchange = DocumentExchange(codes_D, seed=0)
    null_R = np.array([_share(exchange.draw(), has_DE, len(values), int(known_T.sum())) for _ in range(DRAWS)])
    whole = {"tokens": int(known_T.sum()), "elsewhere": share, "chance": float(null_R.mean())}
    yield {
        "layer": layer,
        "by": ALL,
        "place": 0,
        "name": "",
        **whole,
        "p": (1 + int((null_R <= share).sum())) / (1 + DRAWS),
    }
    labels = {name: routes.label(name) for name in (*routes.document_labels, *routes.token_labels)}
    labels |= {POSITION: position_label(routes.position_T), FREQUENCY: frequency_label(routes.token_T)}
    for by, (codes_T, names) in labels.items():
        for place, name in enumerate(names):
            chosen_T = (codes_T == place) & known_T
            if chosen_T.any():
                group = {"tokens": int(chosen_T.sum()), "elsewhere": float(elsewhere_T[chosen_T].mean())}
                yield {"layer": layer, "by": by, "place": place, "name": name, **group, "chance": np.nan, "p": np.nan}


def matched_experts(codes_D: Ints, has_DE: Floats, languages: int) -> Ints:
    """The expert of each language, so that as many tokens as possible have theirs; -1 where experts are too few.

    `has_DE`: tokens of each document that have an expert among their picks.
    """
    table_LE = _table(codes_D, has_DE, languages)
    expert_L = np.full(languages, -1)
    rows, columns = optimize.linear_sum_assignment(table_LE, maximize=True)
    expert_L[rows] = columns
    return expert_L


def _table(codes_D: Ints, has_DE: Floats, languages: int) -> Floats:
    return (codes_D == np.arange(languages)[:, None]).astype(float) @ has_DE


def _share(codes_D: Ints, has_DE: Floats, languages: int, tokens: int) -> float:
    table_LE = _table(codes_D, has_DE, languages)
    rows, columns = optimize.linear_sum_assignment(table_LE, maximize=True)
    return 1 - float(table_LE[rows, columns].sum()) / max(tokens, 1)


# What is said of them -----------------------------------------------------------------------------------------------


def elsewhere_text(kept: Kept) -> str:
    """Every point and layer, then the layer that is closest to the oracle group by group."""
    where = f"on the probe {kept.of}" if kept.of else "on the validation set"
    chance = "languages dealt out anew over documents" if kept.of else "every expert takes its load from all alike"
    blocks = [
        f"# Elsewhere than a router by language, {where}",
        "Share of the tokens that the expert of their language does not work on, each language having one of its own, "
        "dealt out so that as many tokens as possible have theirs: a language of few tokens may be left with one that "
        "most of them do not take. Means over seeds with 95% intervals, described and not tested; by chance: "
        f"{chance}.",
    ]
    header = ["point", "layer", "elsewhere", "by chance", "seeds with p under 0.05"]
    table = [[*row[:2], *map(str, row[2:])] for row in _whole(kept)]
    blocks.append(markdown(Cells(header, table, text_columns=(0,))).rstrip())
    leaking = _leaking(kept)
    for label, layer, own in _closest(kept):
        wide = by_seed(own[(own["layer"] == layer) & (own["by"] != ALL)], "elsewhere", GROUPS)
        cells = Cells(["by", "tokens", "elsewhere"], group_cells(wide, ""), text_columns=(0, 1))
        blocks += [f"## {with_leak_mark(label, label in leaking)}, layer {layer}", markdown(cells)]
    return "\n\n".join(block.rstrip() for block in blocks) + "\n"


def _whole(kept: Kept) -> Iterator[tuple[str, str, str, str, str]]:
    whole, leaking = kept.rows[kept.rows["by"] == ALL], _leaking(kept)
    for (label, layer), own in whole.groupby(["label", "layer"], sort=False):
        shown, chance = (interval_text(own[name].to_numpy(), "") for name in ("elsewhere", "chance"))
        tested = own["p"].dropna()
        yield (
            with_leak_mark(str(label), label in leaking),
            str(layer),
            shown,
            chance,
            f"{int((tested < 0.05).sum())} of {len(tested)}" * (len(tested) > 0),
        )


def _closest(kept: Kept) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """(label, the layer that sends fewest elsewhere against chance, rows) of every point."""
    for label, own in kept.rows.groupby("label", sort=False):
        whole = own[own["by"] == ALL]
        below = (whole["elsewhere"] - whole["chance"]).groupby(whole["layer"]).mean()
        yield str(label), int(str(below.idxmin())), own


def sentences(kept: Kept) -> Iterator[str]:
    """For every point with a learned router the layer that is closest to the oracle, and where its exceptions are."""
    leaking = _leaking(kept)
    where = f"on {kept.of}" if kept.of else "on the validation set"
    for label, layer, own in _closest(kept):
        if label not in _learned(kept.study):
            continue
        here = own[own["layer"] == layer]
        whole = here[here["by"] == ALL]
        name = with_leak_mark(label, label in leaking)
        yield (
            f"{name} sends {interval_text(whole['elsewhere'].to_numpy(), '')} of the tokens {where} "
            f"elsewhere than a router by language ({interval_text(whole['chance'].to_numpy(), '')} by chance; layer "
            f"{layer}){_pattern(here)}"
        )


def _leaking(kept: Kept) -> frozenset[str]:
    """Labels of the points that read later tokens."""
    return frozenset[str]().union(*(part.leaking for part in kept.study.parts))


def _learned(study: Study) -> set[str]:
    """Labels of the points whose router learns."""
    runs = pd.concat([part.runs for part in study.parts])
    return set(runs[runs["routing.router_state"] == RouterState.LEARNED]["label"])


def _pattern(here: pd.DataFrame) -> str:
    """The groups with the smallest and the largest share, for each way to group that has few."""
    grouped = here[here["by"] != ALL].groupby("by", sort=False)
    means_by = {str(by): own.groupby("name", sort=False)["elsewhere"].mean() for by, own in grouped}
    return extremes_text({by: means for by, means in means_by.items() if len(means) <= MOST_VALUES})


MEASURE = Measure(
    "elsewhere",
    "elsewhere than a router by language",
    "moe-study results --sweep {sweep}{probe}",
    collect,
    elsewhere_text,
    {"": sentences},
)
