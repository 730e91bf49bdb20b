"""A few documents of a probe as pieces of text, one for each token, and what the experts of a run did with them.

Shape suffixes: N tokens shown, C picks of the token that has most, K picks shown.
"""

import codecs
from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_study.data.tokenizers import Tokenizer
from moe_study.runs.traces import Trace

DOCUMENTS, TOKENS = 4, 160  # shown of a probe, and of each of them
LONGEST = 60  # characters of one token that are shown
MOST_PICKS = 3  # of one token, by weight


def chosen_documents(trace: Trace, most: int = DOCUMENTS) -> list[int]:
    """Documents that have as many different labels as can be, in their order; the earlier of equals."""
    sizes = np.diff(trace.start_D1)
    labels = [codes for codes, _ in trace.document_labels.values()]
    candidates = [int(d) for d in np.flatnonzero(sizes >= min(TOKENS, int(sizes.max(initial=0))))]
    chosen: list[int] = []
    seen: set[tuple[int, int]] = set()
    of_document = {d: {(n, int(codes[d])) for n, codes in enumerate(labels)} for d in candidates}
    while candidates and len(chosen) < most:
        new = [len(of_document[document] - seen) for document in candidates]
        best = candidates.pop(new.index(max(new)))
        seen |= of_document[best]
        chosen.append(best)
    return sorted(chosen)


def token_span(trace: Trace, document: int) -> slice:
    """The tokens of a document that are shown."""
    start, end = (int(place) for place in trace.start_D1[document : document + 2])
    return slice(start, min(end, start + TOKENS))


def document_data(trace: Trace, documents: Sequence[int], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """For each document its label values by name, its pieces, and the values of labels that tokens have."""
    pieces = tokenizer.token_bytes()
    found = []
    for document in documents:
        span = token_span(trace, document)
        found.append(
            {
                "labels": {name: int(codes[document]) for name, (codes, _) in trace.document_labels.items()},
                "tokenLabels": {name: codes[span].tolist() for name, (codes, _) in trace.token_labels.items()},
                "pieces": pieces_of([pieces[int(token)] for token in trace.token_T[span]]),
                "cut": bool(span.stop < trace.start_D1[document + 1]),
            }
        )
    return found


def pieces_of(tokens: Sequence[bytes]) -> list[str]:
    """The text of each token; a character of several tokens stands with the last of them, and the others are empty."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(token) for token in tokens]
    return [_shortened(text) for text in texts]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def picks(layer: dict[str, Any], spans: Sequence[slice]) -> dict[str, Any]:
    """The experts of the tokens in `spans` (documents one after another), those of largest weight first.

    `most` picks for each token in `expert` (-1: none) and `weight` (percent of the token's weight), one after another.
    """
    token_N = np.concatenate([np.arange(span.start, span.stop) for span in spans]) if spans else np.empty(0, int)
    start_N = np.asarray(layer["start_T1"][token_N], int)
    count_N = np.asarray(layer["start_T1"][token_N + 1], int) - start_N
    place_NC = np.arange(count_N.max(initial=0)) + np.zeros((len(token_N), 1), int)
    there_NC = place_NC < count_N[:, None]
    pick_NC = np.where(there_NC, start_N[:, None] + place_NC, 0)
    there_NC &= np.asarray(layer["kept_P"][pick_NC], bool)
    weight_NC = np.where(there_NC, np.asarray(layer["weight_P"][pick_NC], float), -np.inf)
    most = min(MOST_PICKS, place_NC.shape[1])
    order_NK = np.argsort(-weight_NC, axis=1, kind="stable")[:, :most]
    shown_NK = np.take_along_axis(there_NC, order_NK, 1)
    expert_NK = np.take_along_axis(np.asarray(layer["expert_P"][pick_NC], int), order_NK, 1)
    total_N1 = np.where(there_NC, weight_NC, 0).sum(1, keepdims=True)
    part_NK = np.where(shown_NK, np.take_along_axis(weight_NC, order_NK, 1), 0) / np.where(total_N1, total_N1, 1)
    return {
        "most": most,
        "expert": np.where(shown_NK, expert_NK, -1).ravel().tolist(),
        "weight": np.round(100 * part_NK).astype(int).ravel().tolist(),
    }
