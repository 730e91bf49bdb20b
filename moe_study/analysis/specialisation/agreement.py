"""Routes beside other routes: of an earlier step, of other layers, of another seed, of the label router.

Experts have no identity across seeds: expert 3 of one run and expert 3 of another share a number and nothing else. So
what is averaged over seeds is either a number of the whole layer, or experts are matched first, one to one, so that as
many tokens as possible agree (the Hungarian method, Kuhn 1955; scipy's linear_sum_assignment).

Shapes: T tokens, P picks, D documents, L labels, E experts, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from moe_study.analysis.specialisation.domains import shares
from moe_study.analysis.specialisation.exchanges import DocumentExchange
from moe_study.analysis.specialisation.information import entropy, labelled
from moe_study.analysis.specialisation.layer_trace import Assignments, Ints, LayerTrace, assignments
from moe_study.analysis.statistics import t_interval
from moe_study.errors import DataError

Array = NDArray[np.float64]

SHUFFLES = 20


@dataclass(frozen=True)
class Saturation:
    """How much of the final routes an earlier step has already."""

    overlap: float
    chance: float  # of the two steps' loads, were the earlier picks dealt to any tokens


def saturation(earlier: LayerTrace, final: LayerTrace) -> Saturation:
    """Mean over tokens of |E_t and E_T| / |E_T| (OLMoE, arXiv 2409.02060; there |E_T| = k).

    Both are the same layer of one run over the same tokens. Tokens without a final pick do not count.
    Errors: DataError where the tokens differ.
    """
    _need_same_tokens(earlier, final)
    now = np.unique(earlier.token_of_P * final.experts + earlier.expert_P)
    last = np.unique(final.token_of_P * final.experts + final.expert_P)
    token, expert = np.divmod(last, final.experts)
    size_T = np.bincount(token, minlength=len(final.token_T))
    tokens = int((size_T > 0).sum())
    if not tokens:
        return Saturation(float("nan"), float("nan"))
    load_E = np.bincount(now % final.experts, minlength=final.experts) / len(final.token_T)
    found = np.isin(last, now, assume_unique=True)
    return Saturation(
        float((found / size_T[token]).sum() / tokens), float((load_E[expert] / size_T[token]).sum() / tokens)
    )


@dataclass(frozen=True)
class Paths:
    """Routes of the tokens through all layers, taken as one."""

    tokens: int
    distinct: int
    distinct_if_independent: float  # mean over shuffles of each layer's experts over the tokens
    entropy: float  # nats
    sum_of_entropies: float  # of the layers; less `entropy` it is the total correlation (Watanabe 1960)
    correlation_if_independent: float  # the total correlation that so many tokens show by chance

    @property
    def total_correlation(self) -> float:
        return self.sum_of_entropies - self.entropy


def paths(layers: Sequence[LayerTrace], seed: int = 0, shuffles: int = SHUFFLES) -> Paths:
    """Paths of the tokens' best experts (largest gate weight, the first among equals) through the layers of one run.

    Tokens without a pick in some layer do not count. A description, not a test: the shuffles take the tokens of one
    document for independent. Errors: DataError without layers, or where their tokens differ.
    """
    if not layers:
        raise DataError("paths need at least one layer of experts")
    for layer in layers[1:]:
        _need_same_tokens(layers[0], layer)
    best_LT = np.stack([best_expert(layer) for layer in layers])
    best_LT = best_LT[:, (best_LT >= 0).all(0)]
    tokens = best_LT.shape[1]
    random = np.random.default_rng(seed)
    counts = _path_counts(best_LT)
    shuffled = [_path_counts(random.permuted(best_LT, axis=1)) for _ in range(shuffles)]
    sum_of_entropies = sum(entropy(np.bincount(best_T).astype(float)) for best_T in best_LT)
    return Paths(
        tokens=tokens,
        distinct=len(counts),
        distinct_if_independent=float(np.mean([len(each) for each in shuffled])),
        entropy=entropy(counts.astype(float)),
        sum_of_entropies=sum_of_entropies,
        correlation_if_independent=sum_of_entropies
        - float(np.mean([entropy(each.astype(float)) for each in shuffled])),
    )


def best_expert(layer: LayerTrace) -> Ints:
    """The pick of each token with the largest gate weight, the first among equals; -1 where a token has none."""
    token_P = layer.token_of_P
    order_P = np.lexsort((np.arange(len(token_P)), -np.asarray(layer.weight_P, dtype=float), token_P))
    routed_T = layer.picks_T > 0
    best_T = np.full(len(layer.token_T), -1)
    best_T[routed_T] = np.asarray(layer.expert_P)[order_P[layer.start_T1[:-1][routed_T]]]
    return best_T


@dataclass(frozen=True)
class Agreement:
    """Share of the tokens that go where the label router would send them, experts and labels matched one to one."""

    share: float
    chance: float  # mean with the labels dealt out anew over the documents
    bound: float  # what the best router of as many experts and picks could reach: the oracle
    p: float
    expert_of_label: dict[int, int]


def agreement_with_label(
    layer: LayerTrace, codes_D: Ints, by: str = "picks", permutations: int = 1000, seed: int = 0
) -> Agreement:
    """Agreement of a layer with a label router: `codes_D` is the label, or the label router's expert, by document.

    A token with two picks counts by its weight on the matched expert. Labels beyond the number of experts have no
    expert of their own, which the bound knows.
    """
    codes_T = np.asarray(codes_D)[layer.document_T]
    picks = labelled(assignments(layer, by), codes_T)
    labels = int(np.max(codes_D, initial=0)) + 1
    weights_DE = picks.table(layer.document_T, layer.documents)
    exchange = DocumentExchange(np.asarray(codes_D)[: layer.documents], seed)

    def matched(codes: Ints) -> float:
        table = (codes == np.arange(labels)[:, None]).astype(float) @ weights_DE
        return float(table[optimize.linear_sum_assignment(table, maximize=True)].sum())

    table = picks.table(codes_T, labels)
    rows, columns = optimize.linear_sum_assignment(table, maximize=True)
    share = float(table[rows, columns].sum())
    null_R = np.array([matched(exchange.draw()) for _ in range(permutations)])
    largest_T = np.zeros(picks.tokens)
    np.maximum.at(largest_T, picks.token_P, picks.weight_P)
    by_label = np.sort(np.bincount(codes_T[largest_T > 0], largest_T[largest_T > 0], minlength=labels))[::-1]
    total = max(float(table.sum()), 1e-300)
    return Agreement(
        share=share / total,
        chance=float(null_R.mean()) / total,
        bound=float(by_label[: layer.experts].sum()) / total,
        p=(1 + int((null_R >= share - 1e-9 * total).sum())) / (1 + permutations),
        expert_of_label={int(row): int(column) for row, column in zip(rows, columns, strict=True)},
    )


@dataclass(frozen=True)
class Matching:
    """Experts of another seed in the places of the reference's."""

    other_of_reference_E: Ints
    share: float  # of the tokens' weight on matched experts, over what the weights allow
    chance: float  # the same of two routers of these loads that know nothing of one another


def match_experts(reference: LayerTrace, other: LayerTrace, by: str = "picks") -> Matching:
    """Match the experts of one layer in two seeds by the tokens they share; both over the same tokens.

    Overlap of experts i and j: the sum over tokens of the product of their weights. Errors: DataError where tokens or
    numbers of experts differ.
    """
    _need_same_tokens(reference, other)
    if reference.experts != other.experts:
        raise DataError(f"{reference.experts} experts cannot be matched one to one with {other.experts}")
    first_TE, second_TE = dense(assignments(reference, by)), dense(assignments(other, by))
    overlap_EE = first_TE.T @ second_TE
    chance_EE = np.outer(first_TE.sum(0), second_TE.sum(0)) / max(1, len(first_TE))
    total = max(float(overlap_EE.sum()), 1e-300)
    rows, columns = optimize.linear_sum_assignment(overlap_EE, maximize=True)
    best_chance = chance_EE[optimize.linear_sum_assignment(chance_EE, maximize=True)].sum()
    return Matching(columns, float(overlap_EE[rows, columns].sum()) / total, float(best_chance) / total)


@dataclass(frozen=True)
class SharesOverSeeds:
    """Shares by domain [L, E], mean and t interval over seeds, the experts matched to those of the first seed."""

    names: tuple[str, ...]
    mean_LE: Array
    low_LE: Array
    high_LE: Array
    matchings: tuple[Matching, ...]  # of every seed but the first

    note: str = "experts matched to those of the first seed by the tokens they share (Hungarian method)"


def shares_over_seeds(
    layers_S: Sequence[LayerTrace], name: str, by: str = "picks", level: float = 0.95
) -> SharesOverSeeds:
    """Where matchings are no better than their chance, so is this average: matched noise looks like agreement."""
    if not layers_S:
        raise DataError("an average over seeds needs at least one")
    matchings = tuple(match_experts(layers_S[0], other, by) for other in layers_S[1:])
    first = shares(layers_S[0], name, by)
    rest = [
        shares(layer, name, by).share_LE[:, matching.other_of_reference_E]
        for layer, matching in zip(layers_S[1:], matchings, strict=True)
    ]
    mean_LE, _, low_LE, high_LE = t_interval(np.stack([first.share_LE, *rest], axis=-1), level)
    return SharesOverSeeds(first.names, mean_LE, low_LE, high_LE, matchings)


def dense(picks: Assignments) -> Array:
    """[T, E]: the weight of each token on each expert."""
    cell_P = picks.token_P * picks.experts + picks.expert_P
    flat = np.bincount(cell_P, picks.weight_P, minlength=picks.tokens * picks.experts)
    return flat.reshape(picks.tokens, picks.experts).astype(float)


def relabelled(layer: LayerTrace, expert_of_E: Ints) -> LayerTrace:
    """The layer with its experts under other numbers: expert e becomes expert_of_E[e]."""
    return replace(layer, expert_P=np.asarray(expert_of_E)[layer.expert_P])


def _path_counts(best_LT: Ints) -> Ints:
    """Tokens on each path that occurs."""
    code_T = np.zeros(best_LT.shape[1], dtype=np.int64)
    for best_T in best_LT:  # renumbered at every layer, so that no number of experts and layers overflows
        code_T = np.unique(code_T * (int(best_T.max(initial=0)) + 1) + best_T, return_inverse=True)[1]
    return np.bincount(code_T)


def _need_same_tokens(first: LayerTrace, second: LayerTrace) -> None:
    if first.token_T is not second.token_T and not np.array_equal(first.token_T, second.token_T):
        raise DataError("routes can be compared over the same tokens only; these two traces have different ones")
