"""Measures by the slowest and plainest loops: what the fast ones must agree with."""

from collections import defaultdict
from math import log


def weights(trace, by="picks"):
    """[(token, expert, weight)] with the weights of a token summing to 1."""
    found = []
    for token in range(len(trace.token_T)):
        span = range(trace.start_T1[token], trace.start_T1[token + 1])
        raw = [1.0 if by == "picks" else float(trace.weight_P[p]) for p in span]
        found += [(token, int(trace.expert_P[p]), w / sum(raw)) for p, w in zip(span, raw, strict=True)]
    return found


def information(trace, codes, given=None, by="picks"):
    """I(E; L | given) in nats; tokens with code -1 left out."""
    joint = defaultdict(float)
    for token, expert, weight in weights(trace, by):
        if codes[token] >= 0:
            joint[(given[token] if given is not None else 0), int(codes[token]), expert] += weight
    total = sum(joint.values())
    with_label, with_expert, alone = defaultdict(float), defaultdict(float), defaultdict(float)
    for (value, label, expert), weight in joint.items():
        with_label[value, label] += weight
        with_expert[value, expert] += weight
        alone[value] += weight
    return sum(
        weight / total * log(weight * alone[value] / (with_label[value, label] * with_expert[value, expert]))
        for (value, label, expert), weight in joint.items()
    )


def sets(trace):
    """The experts of each token."""
    return [set(trace.expert_P[trace.start_T1[t] : trace.start_T1[t + 1]].tolist()) for t in range(len(trace.token_T))]
