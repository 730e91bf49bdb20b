"""What an expert, or a domain, is about: counts over a trace, with the lift over chance.

A lift is no test: with few tokens a large one comes by chance alone, and what looks like a topic can be its words.
`moe-study specialise` holds such numbers against nulls.

Shape suffixes: T tokens, P picks (token, expert), L values of a label, E experts, V token ids.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moe_study.data.probes.base import Array
from moe_study.data.tokenizers import Tokenizer
from moe_study.design.routing import experts_of_layer, mixture_layers
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace

FEWEST = 5  # occurrences of a token id for a lift to be worth showing
AROUND = 8  # tokens shown on each side of one that an expert takes


@dataclass(frozen=True)
class Preference:
    """How often something goes to an expert, against how often anything does."""

    name: str
    label: str  # topic, language, token, ...; empty for an expert
    count: float  # tokens; shares of tokens where experts are weighted instead of picked
    share: float  # of its tokens that go to the expert
    lift: float  # over the share of all tokens


@dataclass(frozen=True)
class ExpertProfile:
    """What one expert takes."""

    layer: int
    expert: int
    experts: int
    tokens: float
    share: float  # of all tokens
    domains: list[Preference]
    favourites: list[Preference]  # token ids, by tokens beyond what chance would give
    contexts: list[tuple[bytes, bytes, bytes]]  # before, the token, after


@dataclass(frozen=True)
class Shares:
    """How much of each token goes to each expert; a token counts 1 in all, split evenly over its picks.

    Where every expert has a weight on every token, split by these weights.
    """

    token_P: Array
    expert_P: Array
    part_P: Array
    experts: int
    tokens: int

    @classmethod
    def of(cls, trace: Trace, layer: int) -> "Shares":
        arrays = trace.layer(layer)
        tokens, experts = len(arrays["token_T"]), arrays["experts"]
        count_T = np.diff(arrays["start_T1"])
        token_P = np.repeat(np.arange(tokens), count_T)
        part_P = np.ones(len(token_P))
        if experts > 1 and len(count_T) and count_T.min() == experts:
            part_P = np.asarray(arrays["weight_P"], np.float64)
        sum_T = np.bincount(token_P, part_P, tokens)
        part_P = np.divide(part_P, sum_T[token_P], out=np.zeros(len(part_P)), where=sum_T[token_P] > 0)
        return cls(token_P, np.asarray(arrays["expert_P"], np.int64), part_P, experts, tokens)

    def table(self, code_T: Array, values: int) -> Array:
        """[value L, expert E]; tokens with code -1 are left out."""
        code_P = code_T[self.token_P].astype(np.int64)
        has_P = code_P >= 0
        cell_P = code_P[has_P] * self.experts + self.expert_P[has_P]
        return np.bincount(cell_P, self.part_P[has_P], values * self.experts).reshape(values, self.experts)


def check_experts(folder: RunFolder, wanted: tuple[int, int] | None) -> None:
    """StudyError where the run has no experts, or not the one that is asked for (layer, expert): before it reads."""
    config = folder.read_config()
    layers = mixture_layers(config.routing, config.model.layers)
    if not layers:
        raise StudyError(f"{folder.path} is a dense run: it has no experts to look at")
    if wanted is None:
        return
    layer, expert = wanted
    if layer not in layers:
        known = ", ".join(map(str, layers))
        raise StudyError(f"layer {layer} of {folder.key} has no experts; these layers have: {known}")
    experts = experts_of_layer(config.routing, config.model.layers, layer)
    if not 0 <= expert < experts:
        raise StudyError(f"layer {layer} has experts 0 to {experts - 1}, and no {expert}")


def expert_profile(trace: Trace, tokenizer: Tokenizer, layer: int, expert: int, most: int = 10) -> ExpertProfile:
    """Domains, tokens and contexts of one expert, which the run has (check_experts)."""
    shares = Shares.of(trace, layer)
    all_E = shares.table(np.zeros(shares.tokens, np.int64), 1)[0]
    share = all_E[expert] / max(1.0, all_E.sum())
    domains = [
        preference
        for label, (code_T, values) in labels_by_token(trace).items()
        for preference in _preferences(shares.table(code_T, len(values)), expert, share, label, values)
    ]
    pieces = tokenizer.token_bytes()
    table_VE = shares.table(np.asarray(trace.token_T), len(pieces))
    often = np.flatnonzero(table_VE.sum(1) >= FEWEST)
    beyond = table_VE[often, expert] - table_VE[often].sum(1) * share
    chosen = often[np.argsort(-beyond, kind="stable")][:most]
    chosen = chosen[table_VE[chosen, expert] > 0]
    names = [pieces[i].decode("utf-8", "backslashreplace") for i in chosen]
    return ExpertProfile(
        layer=layer,
        expert=expert,
        experts=shares.experts,
        tokens=float(all_E[expert]),
        share=float(share),
        domains=sorted(domains, key=lambda preference: -preference.lift),
        favourites=list(_preferences(table_VE[chosen], expert, share, "token", names)),
        contexts=list(_contexts(trace, shares, pieces, expert, chosen)),
    )


def domain_profile(trace: Trace, name: str) -> dict[int, list[Preference]]:
    """By layer, how much of the domain `name` (a value of any label) goes to each expert, the largest lift first."""
    labels = labels_by_token(trace)
    found = [
        (label, code)
        for label, (_, values) in labels.items()
        for code, value in enumerate(values)
        if value.casefold() == name.casefold()
    ]
    if not found:
        known = "; ".join(f"{label}: {', '.join(values)}" for label, (_, values) in labels.items())
        raise StudyError(f"no label of the probe has the value {name!r}; it has {known}")
    label, code = found[0]
    code_T, values = labels[label]
    profile = {}
    for layer in trace.layers:
        table_LE = Shares.of(trace, layer).table(code_T, len(values))
        share_E = table_LE.sum(0) / max(1.0, table_LE.sum())
        of_domain = max(1.0, table_LE[code].sum())
        rows = [
            Preference(str(expert), "", float(count), float(count / of_domain), _lift(count / of_domain, share))
            for expert, (count, share) in enumerate(zip(table_LE[code], share_E, strict=True))
        ]
        profile[layer] = sorted(rows, key=lambda row: -row.lift)
    return profile


def labels_by_token(trace: Trace) -> dict[str, tuple[Array, tuple[str, ...]]]:
    """Every label's codes by token."""
    documents = {name: (codes[trace.document_T], values) for name, (codes, values) in trace.document_labels.items()}
    return documents | trace.token_labels


def _preferences(
    table_LE: Array, expert: int, share: float, label: str, names: list[str] | tuple[str, ...]
) -> Iterator[Preference]:
    for row_E, name in zip(table_LE, names, strict=True):
        if total := row_E.sum():
            mine = row_E[expert] / total
            yield Preference(name, label, float(row_E[expert]), float(mine), _lift(mine, share))


def _lift(mine: float, share: float) -> float:
    """`mine` over `share`; 1 where an expert takes nothing at all."""
    return float(mine / share) if share > 0 else 1.0


def _contexts(
    trace: Trace, shares: Shares, pieces: list[bytes], expert: int, tokens: Array
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """One place of each of `tokens` where most of it went to the expert, with what stands around it.

    From all over the probe: the places come from its beginning, middle and end in turn.
    """
    part_T = np.zeros(shares.tokens)
    mine_P = shares.expert_P == expert
    part_T[shares.token_P[mine_P]] = shares.part_P[mine_P]
    for number, token in enumerate(tokens):
        places = np.flatnonzero((np.asarray(trace.token_T) == token) & (part_T > 0))
        if not len(places):
            continue
        places = places[part_T[places] == part_T[places].max()]
        place = int(places[len(places) * (2 * number + 1) // (2 * len(tokens))])
        document = int(trace.document_T[place])
        first, last = int(trace.start_D1[document]), int(trace.start_D1[document + 1])

        def text(start: int, end: int) -> bytes:
            return b"".join(pieces[int(i)] for i in trace.token_T[start:end])

        begin, end = max(first, place - AROUND), min(last, place + 1 + AROUND)
        yield text(begin, place), text(place, place + 1), text(place + 1, end)
