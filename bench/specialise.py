"""What does it cost to measure what the experts of a run attend to?

    python -m bench.specialise                                 a minute
    python -m bench.specialise --experts 64 --vocabulary 50257
    python -m bench.specialise --runs runs                     trained runs too: a minute more
    python -m bench.specialise --runs runs --side-by-side      and all of them, by the clock of a quiet machine

The first row: the CPU seconds in which one run's information is computed (every label alone, given the token id and
given each other label, with the exchanged labellings of their nulls), of a made-up trace as large as a real one: words
by Zipf's law, most of them of one language; four languages, eight topics, a part of speech, positions. The second: the
same with all other tables, shares with their bands, distances, ..., the hidden-state control.

With --runs, of finished runs of that folder that have experts: the CPU seconds of one run with all that `moe-study
specialise` does for it, the trace, too; and the wall clock of all of them side by side on two cores, for 30 runs.
Thirty runs on two cores must take at most five minutes, so one may take 20 CPU seconds.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.common import Row, open_results, options, prepare_process, spread, unusual
from moe_study.analysis.frame import done, each, load_frame
from moe_study.analysis.specialisation.hidden_states import clusters
from moe_study.analysis.specialisation.layer_trace import LayerTrace, first_documents
from moe_study.analysis.specialisation.run_tables import (
    CONTROL_TOKENS,
    TABLES,
    control_table,
    run_table,
    with_position,
)
from moe_study.data.probes import DEFAULT_PROBE
from moe_study.posthoc.measure import Wish, measure
from moe_study.posthoc.specialise import measure_runs
from moe_study.runs.folder import RunFolder

TOKENS, LENGTH, LAYERS = 200_000, 256, 3
LANGUAGES, TOPICS, TAGS = 4, 8, 12
EXPERTS, VOCABULARY, PERMUTATIONS, TOP, WIDTH = 8, 4096, 1000, 2, 64
MANY_RUNS, JOBS = 30, 2


def made_up_layers(experts: int, vocabulary: int, tokens: int, top: int) -> dict[int, LayerTrace]:
    """Routes that follow the token id and, in part, the language."""
    random = np.random.default_rng(0)
    documents = tokens // LENGTH
    document_T = np.repeat(np.arange(documents), LENGTH)
    language_D, topic_D = random.integers(LANGUAGES, size=documents), random.integers(TOPICS, size=documents)
    frequency = 1 / np.arange(1, vocabulary + 1)
    token_T = random.choice(vocabulary, len(document_T), p=frequency / frequency.sum())
    of_language_LV = np.stack([random.permutation(vocabulary) for _ in range(LANGUAGES)])
    own_T = random.random(len(token_T)) < 0.9
    token_T = np.where(own_T, of_language_LV[language_D[document_T], token_T], token_T)
    tag_VG = random.random((vocabulary, TAGS))
    tag_T = (tag_VG[token_T] + 0.3 * random.random((len(token_T), TAGS))).argmax(1)
    position_T = np.arange(len(token_T)) % LENGTH
    labels_D = {
        "language": (language_D, tuple(f"language {n}" for n in range(LANGUAGES))),
        "topic": (topic_D, tuple(f"topic {n}" for n in range(TOPICS))),
    }
    labels_T = {"part of speech": (tag_T, tuple(f"tag {n}" for n in range(TAGS)))}
    nothing_T = np.full(len(token_T), np.nan)
    layers = []
    for _ in range(LAYERS):
        logits_TE = random.normal(size=(vocabulary, experts))[token_T] * 1.5
        logits_TE += random.normal(size=(LANGUAGES, experts))[language_D[document_T]]
        expert_TK = np.argsort(-(logits_TE + random.gumbel(size=logits_TE.shape)), axis=1)[:, :top]
        layers.append(
            LayerTrace(
                token_T,
                document_T,
                position_T,
                start_T1=top * np.arange(len(token_T) + 1),
                expert_P=expert_TK.ravel(),
                weight_P=random.random(expert_TK.size),
                kept_P=np.ones(expert_TK.size, dtype=bool),
                experts=experts,
                entropy_T=nothing_T,
                margin_T=nothing_T,
                document_labels=labels_D,
                token_labels=labels_T,
            )
        )
    return with_position(dict(enumerate(layers)))


def information_row(layers: dict[int, LayerTrace], permutations: int, rounds: int) -> Row:
    """CPU seconds of one run's information."""
    seconds = [_cpu_seconds(lambda: run_table("information", layers, permutations)) for _ in range(rounds)]
    return {**spread(seconds), "unit": "s", "seconds_of": "CPU, one thread", "rounds": rounds}


def all_row(layers: dict[int, LayerTrace], permutations: int, rounds: int) -> Row:
    """CPU seconds of all of one run's tables."""
    cut = {number: first_documents(layer, CONTROL_TOKENS) for number, layer in layers.items()}
    states = np.random.default_rng(2).normal(size=(len(cut[0].token_T), WIDTH)).astype(np.float16)

    def compute() -> None:
        for name in TABLES:
            run_table(name, layers, permutations)
        cluster_of = {number: clusters(states, layer.experts) for number, layer in cut.items()}
        control_table(cut, cluster_of, permutations)

    seconds = [_cpu_seconds(compute) for _ in range(rounds)]
    return {**spread(seconds), "unit": "s", "seconds_of": "CPU, one thread", "rounds": rounds}


def run_row(runs: Sequence[Any], wish: Wish) -> Row:
    """CPU seconds of each run with all that `moe-study specialise` does for it by default, traces included."""
    seconds = []
    for run in runs:
        with tempfile.TemporaryDirectory() as place:
            folder = _untouched(run.folder, Path(place))
            probe = wish.probe_of(folder)
            seconds.append(_cpu_seconds(lambda: measure(folder, probe, wish, progress=False)))  # noqa: B023
    return {**spread(seconds), "unit": "s", "seconds_of": "CPU, one thread", "runs": len(runs)}


def side_by_side_row(frame: pd.DataFrame, runs: Sequence[Any], wish: Wish) -> Row:
    """Wall clock of all runs on two cores, times 30 over their number."""
    with tempfile.TemporaryDirectory() as place:
        for run in runs:
            _untouched(run.folder, Path(place))
        copied = frame.assign(folder=[str(Path(place) / key) for key in frame["key"]])
        start = time.perf_counter()
        found = measure_runs(copied[copied["key"].isin([run.key for run in runs])], wish, lambda line: None, JOBS)
        seconds = (time.perf_counter() - start) * MANY_RUNS / len(found.runs)
    return {**spread([seconds]), "unit": "s", "seconds_of": f"wall clock, {JOBS} processes", "runs": len(found.runs)}


def _untouched(folder: str, place: Path) -> RunFolder:
    """A copy of a run without what was found about it."""
    copy = shutil.copytree(folder, place / Path(folder).name, ignore=shutil.ignore_patterns("traces", "findings"))
    return RunFolder(copy)


def _cpu_seconds(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--experts", type=int, default=EXPERTS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--permutations", type=int, default=PERMUTATIONS)
    parser.add_argument("--by", choices=["picks", "gate"], default="picks")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--runs", type=Path, help="a folder of trained runs")
    parser.add_argument("--most", type=int, default=5, help="runs whose CPU seconds are taken, one of each point first")
    parser.add_argument("--side-by-side", action="store_true", help="time all of them by the clock, too")
    arguments = parser.parse_args()
    prepare_process(threads=1)
    results = open_results(arguments)
    top = arguments.experts if arguments.by == "gate" else TOP  # where every token has every expert, gates weigh
    layers = made_up_layers(arguments.experts, arguments.vocabulary, arguments.tokens, top)
    settings = unusual(
        experts=(arguments.experts, EXPERTS),
        vocabulary=(arguments.vocabulary, VOCABULARY),
        permutations=(arguments.permutations, PERMUTATIONS),
        gate=(arguments.by == "gate", False),
    )
    size = f"{LAYERS} layers of {arguments.tokens:,} tokens{settings}"
    results.measure(f"specialise {size}", lambda: information_row(layers, arguments.permutations, arguments.rounds))
    results.measure(f"specialise all of {size}", lambda: all_row(layers, arguments.permutations, arguments.rounds))
    if arguments.runs is None:
        return
    wish = Wish(DEFAULT_PROBE, arguments.tokens, arguments.permutations)
    frame = done(load_frame([arguments.runs]))
    frame = frame[frame["routing.selection"] != "dense"]
    runs = list(each(frame.assign(turn=frame.groupby("label").cumcount()).sort_values(["turn", "label"])))
    results.measure("specialise a trained run", lambda: run_row(runs[: arguments.most], wish))
    if arguments.side_by_side:
        results.measure(f"specialise {MANY_RUNS} runs on two cores", lambda: side_by_side_row(frame, runs, wish))


if __name__ == "__main__":
    main()
