"""What each benchmark row must show and what it aims at: ratios of seconds or bytes, or seconds; lower is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    must: float
    aim: float
    what: str  # the ratio, or the seconds, in words


GPU = "gpu "  # what the names of a GPU's rows begin with
LAYER = "layer over its dense twin of equal active FLOPs"
SEQUENCE = "layer with one decision a sequence over its dense twin"
SKEW = "layer whose busiest experts take 4 times the mean load over one with even load"
THRESHOLD = "threshold layer (N=64) that keeps 2 experts per token over one that keeps 8"
STEP = "whole training step over the dense twin's"
MANY = "step with 512 experts over one with 8, at 65,536 tokens a micro-batch"
PACKING = "100 tiny runs packed over one after another, wall clock"
START = "seconds from the start of a command to its end"
TRACE = "trace of a probe over a plain evaluation of as many tokens"
SCALE = "CPU seconds of a command on a large sweep"
MEMORY = "peak memory of a step beyond weights, gradients and optimizer state over the dense twin's"

TARGETS = {
    "layer 8x1": Target(1.22, 1.12, LAYER),
    "layer 8x2": Target(1.22, 1.12, LAYER),
    "layer 64x8": Target(1.60, 1.30, LAYER),
    "layer 512x8": Target(2.10, 1.75, LAYER),
    "layer 8x8 sequence": Target(1.30, 1.15, SEQUENCE),
    "layer 64x8 sequence": Target(1.30, 1.15, SEQUENCE),
    "layer 512x8 sequence": Target(1.30, 1.15, SEQUENCE),
    "layer skew 4:1 over balanced": Target(1.05, 1.02, SKEW),
    "layer threshold 2 over 8": Target(0.45, 0.35, THRESHOLD),
    "step micro 64x8": Target(1.16, 1.07, STEP),
    "startup train.py --help": Target(1.0, 0.7, START),
    "startup moe-study plan": Target(1.0, 0.7, START),
    "startup moe-study status": Target(1.0, 0.2, START),
    "startup moe-study inspect": Target(5.0, 3.0, START),
    "startup first step of a toy run": Target(6.0, 4.0, "seconds from the command to the first step's record"),
    "specialise 3 layers of 200,000 tokens": Target(20.0, 10.0, "CPU seconds of one run's nulls, 1,000 permutations"),
    "specialise all of 3 layers of 200,000 tokens": Target(20.0, 10.0, "the same for all that is measured of one run"),
    "specialise a trained run": Target(20.0, 10.0, "CPU seconds of one run, traced and measured, 1,000 permutations"),
    "specialise 30 runs on two cores": Target(300.0, 150.0, "seconds of 30 runs, traced and measured side by side"),
    "trace micro 8x2": Target(1.25, 1.10, TRACE),
    "trace micro 8x2, 1000000 tokens": Target(1.25, 1.10, TRACE),
    "scale: plan of 10,000 points": Target(30.0, 10.0, SCALE),
    "scale: a finished sweep of 5,000 runs again": Target(20.0, 10.0, SCALE),
    "scale: status of 5,000 runs": Target(3.0, 2.0, SCALE),
    "scale: frame of 5,000 runs": Target(10.0, 5.0, SCALE),
    "scale: frame of 200 runs with 1,000 logged steps": Target(3.0, 2.0, SCALE),
    "scale: plots of 500 runs at 100 points": Target(60.0, 30.0, SCALE),
    "scale: report of 200 runs with 1,000 logged steps": Target(60.0, 30.0, SCALE),
    "scale: 5,000 held jobs submitted": Target(30.0, 20.0, "seconds of the sweep's command, planning included"),
    "packing 100 tiny runs": Target(0.70, 0.55, PACKING),
    "memory step micro 64x8": Target(1.50, 1.20, MEMORY),
    "gpu layer 8x2": Target(1.50, 1.20, LAYER),
    "gpu layer 64x8": Target(2.20, 1.40, LAYER),
    "gpu step 8x2": Target(1.25, 1.10, STEP),
    "gpu step 64x8": Target(1.50, 1.20, STEP),
    "gpu step N512 over N8": Target(1.60, 1.30, MANY),
    "gpu dense over nanogpt": Target(1.00, 1 / 1.15, "dense training step over nanoGPT's, both compiled"),
    "gpu packing 100 tiny runs": Target(0.35, 0.20, PACKING),
}

TWO_THREADS = ", 2 threads"  # how the names of rows end that were timed by the clock on two threads
PEER = Target(0.90, 0.75, "our layer over theirs, each as a ratio to its own dense twin")
# Every product of this layer stands in its formula: there is nothing to save but what lies between them.
SOFT_PEER = Target(1.00, 0.90, PEER.what)


def target_of(row: str) -> Target | None:
    """What the row of that name has to show; None for rows that are only looked at.

    Layers have to be cheap by either clock. Peers are judged by the clock on both cores, as people run them (on a
    GPU: by its clock); one thread's CPU seconds beside them are only looked at.
    """
    timed_as_run = row.endswith(TWO_THREADS) or row.startswith(GPU)
    name = row.removesuffix(TWO_THREADS)
    if (peer := name.removeprefix(GPU)).startswith("peer "):
        chosen = SOFT_PEER if peer.startswith("peer soft-moe-pytorch soft 8x1") else PEER
        return chosen if timed_as_run else None
    if name.startswith(f"{GPU}memory step "):
        return Target(1.50, 1.20, MEMORY)
    return TARGETS.get(name)
