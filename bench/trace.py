"""What does it cost to keep every token's routes, beside plain evaluation?

    python -m bench.trace                                      a minute
    python -m bench.trace --tokens 1000000 --threads 2 --rounds 3
    python -m bench.trace --model pico --tokens 20000

One row: the seconds of a trace (documents of 20 to 600 tokens, one window of one document after another, everything
written to disk) over those of an evaluation of as many tokens in full windows, which counts no routes. A trace must
keep 0.8 of the evaluation's speed, so the ratio may be 1.25.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bench.common import (
    Row,
    milliseconds,
    model_config,
    open_results,
    options,
    prepare_process,
    ratio,
    seconds_of,
    take_turns,
    unusual,
)
from moe_study.data import Batch
from moe_study.data.probes import Probe
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Routing
from moe_study.posthoc.trace import Tracer
from moe_study.runs.traces import TraceIdentity, write_trace
from moe_study.training.evaluation import evaluate
from moe_study.training.models import build_model

TOKENS, VOCABULARY, MODEL = 65_536, 8192, "micro"
SHORTEST, LONGEST = 20, 600  # tokens of a document


def made_up_probe(tokens: int) -> Probe:
    """Random ids in documents of all lengths."""
    random = np.random.default_rng(0)
    ends = np.cumsum(random.integers(SHORTEST, LONGEST, tokens // SHORTEST))
    start_D1 = np.concatenate([[0], ends[ends < tokens], [tokens]])
    language_D = random.integers(2, size=len(start_D1) - 1)
    token_T = random.integers(VOCABULARY, size=tokens)
    return Probe("bench", "0" * 64, token_T, start_D1, {"language": (language_D, ("de", "en"))})


def windows(config: RunConfig, token_T: np.ndarray) -> Iterator[Batch]:
    """The same tokens as full windows in batches, as evaluation reads them."""
    context, rows = config.model.context, config.run.eval_batch
    whole_WT = token_T[: (len(token_T) - 1) // context * context].reshape(-1, context)
    next_WT = token_T[1 : whole_WT.size + 1].reshape(-1, context)
    for first in range(0, len(whole_WT), rows):
        inputs_BT, targets_BT = whole_WT[first : first + rows], next_WT[first : first + rows]
        zero_B = np.zeros(len(inputs_BT), np.int64)
        yield Batch(inputs_BT, targets_BT, zero_B, zero_B)


def sides(config: RunConfig, tokens: int) -> dict[str, Callable[[], Any]]:
    """A trace and an evaluation of so many tokens by one model."""
    device, probe = torch.device("cpu"), made_up_probe(tokens)
    tracer = Tracer(build_model(config, None).eval(), config, device)
    corpus: Any = SimpleNamespace(languages=["x"], topics=["x"], token_bytes_V=np.ones(VOCABULARY, np.int64))

    def trace() -> None:
        with tempfile.TemporaryDirectory() as folder:
            bar: tqdm[Any] = tqdm(total=tokens, disable=True)
            identity = TraceIdentity("bench", None, probe.name, probe.fingerprint)
            with write_trace(Path(folder), identity) as writer:
                tracer.write(writer, probe, np.zeros(probe.documents, np.int64), None, bar)

    return {
        "trace": trace,
        "evaluation": lambda: evaluate(tracer.model, windows(config, probe.token_T), corpus, device),
    }


def row(model: ModelConfig, tokens: int, rounds: int) -> Row:
    """Trace over evaluation."""
    config = RunConfig(
        model=model,
        routing=Routing(num_experts=8, k=2),
        data=DataConfig(tokenizer=TokenizerConfig("bpe", VOCABULARY)),
        run=RunSettings(steps=1, eval_batch=32),
    )
    for side in sides(config, min(tokens, TOKENS)).values():  # a million tokens need no warmer start than this
        side()
    seconds = take_turns(sides(config, tokens), rounds, warmup=0)
    return {
        **ratio(seconds["trace"], seconds["evaluation"]),
        "milliseconds": milliseconds(seconds),
        "rounds": rounds,
        "seconds_of": seconds_of(),
    }


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    model = dataclasses.replace(model_config(arguments.model), dropout=0.0)
    settings = unusual(tokens=(arguments.tokens, TOKENS), threads=(arguments.threads, 1))
    results = open_results(arguments)
    results.measure(f"trace {arguments.model} 8x2{settings}", lambda: row(model, arguments.tokens, arguments.rounds))


if __name__ == "__main__":
    main()
