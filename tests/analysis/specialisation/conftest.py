from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.specialisation.planted_routes import planted_trace


@pytest.fixture
def random():
    return np.random.default_rng(11)


@pytest.fixture(params=["top 1", "top 2", "ragged"])
def trace(request, random):
    """A small trace with missing labels; "ragged": 0 to 3 picks a token."""
    made = planted_trace(random, "part of speech", taste=0.7, top=2 if request.param == "top 2" else 1, topical=0.2)
    return with_missing_labels(random_picks(made, random) if request.param == "ragged" else made, random)


def random_picks(trace, random):
    """The trace with a random set of 0 to 3 experts for each token."""
    number_T = random.integers(0, 4, size=len(trace.token_T))
    sets = [random.choice(trace.experts, n, replace=False) for n in number_T]
    picks = int(number_T.sum())
    return replace(
        trace,
        start_T1=np.concatenate([[0], np.cumsum(number_T)]),
        expert_P=np.concatenate(sets).astype(int),
        weight_P=random.random(picks) + 0.01,
        kept_P=random.random(picks) < 0.9,
    )


def with_missing_labels(trace, random):
    def some(codes):
        return np.where(random.random(len(codes)) < 0.1, -1, codes)

    return replace(
        trace,
        document_labels={name: (some(codes), names) for name, (codes, names) in trace.document_labels.items()},
        token_labels={name: (some(codes), names) for name, (codes, names) in trace.token_labels.items()},
    )


def without_picks(trace):
    """The trace with no pick at all, as of a threshold that nothing reaches."""
    none = np.zeros(0, dtype=int)
    return replace(
        trace, start_T1=np.zeros_like(trace.start_T1), expert_P=none, weight_P=none.astype(float), kept_P=none > 0
    )
