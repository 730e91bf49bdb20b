"""What do the nulls of specialisation cost?

    python -m bench.specialise                                 half a minute
    python -m bench.specialise --experts 64 --vocabulary 50257

One row: the CPU seconds in which one run's information rows are computed (every label alone, given the token id and
given each other label, with the exchanged labellings of their nulls), on a made-up trace as large as a real one: words
by Zipf's law, most of them of one language; four languages, eight topics, a part of speech, positions. Thirty such runs
on two cores must take at most five minutes, so one may take 20 CPU seconds.
"""

import time
from dataclasses import replace

import numpy as np

from bench.common import Row, open_results, options, prepare_process, spread, unusual
from moe_study.analysis.specialisation.layer_trace import LayerTrace, position_label
from moe_study.analysis.specialisation.rows import information_rows

TOKENS, LENGTH, LAYERS = 200_000, 256, 3
LANGUAGES, TOPICS, TAGS = 4, 8, 12
EXPERTS, VOCABULARY, PERMUTATIONS = 8, 4096, 1000


def made_up_layers(experts: int, vocabulary: int, tokens: int) -> list[LayerTrace]:
    """Top-2 routes that follow the token id and, in part, the language."""
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
    labels_T = {
        "part of speech": (tag_T, tuple(f"tag {n}" for n in range(TAGS))),
        "position": position_label(position_T),
    }
    nothing_T = np.full(len(token_T), np.nan)
    layers = []
    for _ in range(LAYERS):
        logits_TE = random.normal(size=(vocabulary, experts))[token_T] * 1.5
        logits_TE += random.normal(size=(LANGUAGES, experts))[language_D[document_T]]
        expert_TK = np.argpartition(-(logits_TE + random.gumbel(size=logits_TE.shape)), 2, axis=1)[:, :2]
        layers.append(
            LayerTrace(
                token_T,
                document_T,
                position_T,
                start_T1=2 * np.arange(len(token_T) + 1),
                expert_P=expert_TK.ravel(),
                weight_P=np.full(expert_TK.size, 0.5),
                kept_P=np.ones(expert_TK.size, dtype=bool),
                experts=experts,
                entropy_T=nothing_T,
                margin_T=nothing_T,
                document_labels=labels_D,
                token_labels=labels_T,
            )
        )
    return layers


def row(layers: list[LayerTrace], by: str, permutations: int, rounds: int) -> Row:
    """CPU seconds of one run's rows."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        information_rows(layers, by, permutations)
        seconds.append(time.process_time() - start)
    return {**spread(seconds), "unit": "s", "seconds_of": "CPU, one thread", "rounds": rounds}


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--experts", type=int, default=EXPERTS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--permutations", type=int, default=PERMUTATIONS)
    parser.add_argument("--by", choices=["picks", "gate"], default="picks")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    arguments = parser.parse_args()
    prepare_process(threads=1)
    layers = made_up_layers(arguments.experts, arguments.vocabulary, arguments.tokens)
    if arguments.by == "gate":
        weight_P = np.random.default_rng(1).random(len(layers[0].expert_P))
        layers = [replace(layer, weight_P=weight_P) for layer in layers]
    settings = unusual(
        experts=(arguments.experts, EXPERTS),
        vocabulary=(arguments.vocabulary, VOCABULARY),
        permutations=(arguments.permutations, PERMUTATIONS),
        gate=(arguments.by == "gate", False),
    )
    name = f"specialise {LAYERS} layers of {arguments.tokens:,} tokens{settings}"
    open_results(arguments).measure(name, lambda: row(layers, arguments.by, arguments.permutations, arguments.rounds))


if __name__ == "__main__":
    main()
