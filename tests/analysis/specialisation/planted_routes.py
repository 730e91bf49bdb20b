"""Traces whose routes follow what they are told to, and nothing else."""

import numpy as np
from scipy import special

from moe_study.analysis.specialisation.layer_trace import LayerTrace, position_label

FOLLOWED = ("language", "topic", "part of speech", "token id", "position", "nothing")


def planted_trace(
    random: np.random.Generator,
    follow: str = "nothing",
    strength: float = 0.5,
    taste: float = 0.0,
    documents: int = 40,
    length: int = 30,
    ragged: bool = False,
    vocabulary: int = 24,
    topical: float = 0.0,
    experts: int = 4,
    top: int = 1,
    languages: int = 2,
    topics: int = 3,
    speech_by_document: bool = False,
) -> LayerTrace:
    """Tokens with a language, topic, ambiguous part of speech and position; picks drawn from softmax(logits).

    `strength` is the standard deviation of the logits that the followed label adds, `taste` that of every document's
    own logits. `topical` is the share of tokens drawn from the topic's own part of the vocabulary. `ragged`: documents
    of very different lengths. `speech_by_document`: a document keeps to one part of speech for a word.
    """
    language_D, topic_D = random.integers(languages, size=documents), random.integers(topics, size=documents)
    length_D = np.maximum(2, (length * random.exponential(size=documents))).astype(int) if ragged else None
    length_D = np.full(documents, length) if length_D is None else length_D
    document_T = np.repeat(np.arange(documents), length_D)
    position_T = np.concatenate([np.arange(n) for n in length_D])
    tokens = len(document_T)
    zipf = 1 / np.arange(1, vocabulary + 1)
    token_T = random.choice(vocabulary, tokens, p=zipf / zipf.sum())
    own_T = random.random(tokens) < topical
    per_topic = vocabulary // topics
    token_T[own_T] = topic_D[document_T[own_T]] * per_topic + random.integers(per_topic, size=own_T.sum())
    verb_V = random.random(vocabulary)  # how often a word is a verb
    if speech_by_document:
        speech_T = (random.random((documents, vocabulary)) < verb_V)[document_T, token_T].astype(int)
    else:
        speech_T = (random.random(tokens) < verb_V[token_T]).astype(int)
    place_T, places = position_label(position_T)
    label_T = {
        "language": language_D[document_T],
        "topic": topic_D[document_T],
        "part of speech": speech_T,
        "token id": token_T,
        "position": place_T,
        "nothing": np.zeros(tokens, dtype=int),
    }[follow]
    logits_LE = random.normal(size=(label_T.max() + 1, experts)) * strength * (follow != "nothing")
    logits_TE = logits_LE[label_T] + taste * random.normal(size=(documents, experts))[document_T]
    noisy_TE = logits_TE + random.gumbel(size=(tokens, experts))
    picks_TK = np.argsort(-noisy_TE, axis=1)[:, :top]
    weight_TK = random.dirichlet(np.full(top, 5.0), size=tokens)
    probability_TE = special.softmax(logits_TE, axis=1)
    sorted_TE = -np.sort(-noisy_TE, axis=1)
    return LayerTrace(
        token_T=token_T,
        document_T=document_T,
        position_T=position_T,
        start_T1=np.arange(tokens + 1) * top,
        expert_P=picks_TK.ravel(),
        weight_P=weight_TK.ravel(),
        kept_P=np.ones(tokens * top, dtype=bool),
        experts=experts,
        entropy_T=special.entr(probability_TE).sum(1),
        margin_T=sorted_TE[:, top - 1] - sorted_TE[:, min(top, experts - 1)],
        document_labels={
            "language": (language_D, tuple(f"language {n}" for n in range(languages))),
            "topic": (topic_D, tuple(f"topic {n}" for n in range(topics))),
        },
        token_labels={"part of speech": (speech_T, ("noun", "verb")), "position": (place_T, places)},
    )
