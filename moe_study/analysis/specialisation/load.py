"""Of one layer: load and its evenness, the router's entropy and margin, co-activation, the standing committee.

Shapes: T tokens, L domains, E experts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from moe_study.analysis.specialisation.domains import shares
from moe_study.analysis.specialisation.information import entropy
from moe_study.analysis.specialisation.layer_trace import LayerTrace, assignments

Array = NDArray[np.float64]

PRESENT = 0.5  # of an even share of a domain's gate mass
IN_DOMAINS = 0.8  # of the domains


@dataclass(frozen=True)
class Load:
    """Share of each expert, and how even they are."""

    share_E: Array
    variation: float  # coefficient of variation: deviation over mean; 0 is even, sqrt(E - 1) is all to one
    largest_violation: float  # (largest - mean) / mean; MaxVio of Wang et al. 2024, arXiv 2408.15664
    effective_experts: float  # exp(entropy): E where even, 1 where all go to one
    unused: int


def load(layer: LayerTrace, by: str = "picks", kept_only: bool = False) -> Load:
    """The load of a layer; NaN throughout where no token has a pick."""
    picks = assignments(layer, by, kept_only)
    return load_of(np.bincount(picks.expert_P, picks.weight_P, minlength=layer.experts))


def load_of(weight_E: NDArray[np.number]) -> Load:
    """The load where experts take `weight_E`, counts or weights; NaN throughout where none takes any."""
    if not weight_E.sum():
        nan = float("nan")
        return Load(np.full(len(weight_E), nan), nan, nan, nan, len(weight_E))
    share_E = weight_E / weight_E.sum()
    return Load(
        share_E,
        variation=float(share_E.std() / share_E.mean()),
        largest_violation=float(share_E.max() / share_E.mean() - 1),
        effective_experts=float(np.exp(entropy(share_E))),
        unused=int((weight_E == 0).sum()),
    )


@dataclass(frozen=True)
class Spread:
    """Values of tokens in five numbers; NaN values (a selection without scores) are not counted."""

    tokens: int
    mean: float
    sd: float
    low: float  # 5%
    median: float
    high: float  # 95%


def spread(values_T: NDArray[np.floating]) -> Spread:
    """Of router entropies (nats) or margins; NaN throughout where there are none."""
    values = np.asarray(values_T, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Spread(0, *[float("nan")] * 5)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Spread(len(values), float(values.mean()), float(values.std()), float(low), float(median), float(high))


def spread_by_label(layer: LayerTrace, name: str, of: str = "entropy") -> dict[str, Spread]:
    """Router entropy (or of="margin") by the values of a label; values without tokens are left out."""
    codes_T, names = layer.label(name)
    values_T = {"entropy": layer.entropy_T, "margin": layer.margin_T}[of]
    return {value: spread(values_T[codes_T == code]) for code, value in enumerate(names) if np.any(codes_T == code)}


@dataclass(frozen=True)
class CoActivation:
    """Tokens that picked both of two experts, over ALL pairs."""

    both_EE: NDArray[np.int64]  # symmetric; the diagonal holds the tokens of each expert
    tokens: int  # with a pick

    @property
    def given_first_EE(self) -> Array:
        """N(i, j) / N(i): how often j comes along where i is picked (OLMoE, arXiv 2409.02060); NaN if i never is."""
        tokens_E = self.both_EE.diagonal().astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(tokens_E[:, None] > 0, self.both_EE / tokens_E[:, None], np.nan)

    @property
    def lift_EE(self) -> Array:
        """N(i, j) N / (N(i) N(j)): over what two experts of these loads come to by chance alone.

        With k fixed picks a token, chance lies somewhat below 1, since a token cannot pick an expert twice.
        """
        tokens_E = self.both_EE.diagonal().astype(float)
        chance_EE = np.outer(tokens_E, tokens_E) / max(1, self.tokens)
        return np.divide(self.both_EE, chance_EE, out=np.full(chance_EE.shape, np.nan), where=chance_EE > 0)


def co_activation(layer: LayerTrace) -> CoActivation:
    """Counts over the picks as the router made them, dropped ones too."""
    picked_TE = _picked(layer)
    return CoActivation(np.asarray((picked_TE.T @ picked_TE).todense()), int((picked_TE.sum(1) > 0).sum()))


@dataclass(frozen=True)
class Committee:
    """Experts that carry every domain alike, whatever it is about (standing committee, arXiv 2601.03425)."""

    members: tuple[int, ...]
    coverage: float  # their share of the gate mass, mean over domains
    chance: float  # the share of as many experts where the load is even
    mean_rank_E: Array  # over domains; 1 is the largest share
    rank_variance_E: Array
    present_E: Array  # share of the domains that an expert is present in


def committee(layer: LayerTrace, name: str, by: str = "gate") -> Committee:
    """The Pareto set of (mean rank, variance of the rank) among experts present in 80% of the domains; both small.

    An expert is ranked by its share of the gate mass in each domain. It is present where it has half of an even share
    or more: our reading of "present", since with enough tokens every expert turns up everywhere.
    """
    share_LE = shares(layer, name, by).share_LE
    share_LE = share_LE[~np.isnan(share_LE).any(1)]
    if not len(share_LE):
        nan_E = np.full(layer.experts, np.nan)
        return Committee((), float("nan"), float("nan"), nan_E, nan_E.copy(), nan_E.copy())
    from scipy.stats import rankdata  # takes half a second to import

    rank_LE = rankdata(-share_LE, axis=1)
    mean_E, variance_E = rank_LE.mean(0), rank_LE.var(0)
    present_E = (share_LE >= PRESENT / layer.experts).mean(0)
    eligible = np.flatnonzero(present_E >= IN_DOMAINS)

    def beaten(expert: np.intp) -> bool:
        no_worse = (mean_E[eligible] <= mean_E[expert]) & (variance_E[eligible] <= variance_E[expert])
        better = (mean_E[eligible] < mean_E[expert]) | (variance_E[eligible] < variance_E[expert])
        return bool(np.any(no_worse & better))

    members = tuple(int(expert) for expert in eligible if not beaten(expert))
    coverage = float(share_LE[:, list(members)].sum(1).mean())
    return Committee(members, coverage, len(members) / layer.experts, mean_E, variance_E, present_E)


def _picked(layer: LayerTrace) -> sparse.csr_array:
    """[T, E]: 1 where a token picked an expert."""
    picked = sparse.csr_array(
        (np.ones(len(layer.expert_P), dtype=np.int64), np.asarray(layer.expert_P), np.asarray(layer.start_T1)),
        shape=(len(layer.token_T), layer.experts),
        copy=True,  # the next line sorts the picks of a token in place, apart from their weights
    )
    picked.sum_duplicates()
    picked.data[:] = 1
    return picked
