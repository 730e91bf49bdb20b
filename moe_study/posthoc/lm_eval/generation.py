"""Greedy text: the most probable next token after a pass over all that stands before it, again and again.

Each pass ends at the last token, so nothing later can be read, whatever the routing; there is no cache. Texts beyond
the model's context are read from the left end of its last window on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moe_study.data.tokenizers import Tokenizer
from moe_study.posthoc.lm_eval.likelihood import Reader


@dataclass
class Wanted:
    """One text to be continued."""

    tokens: list[int]  # at least one; grows
    stops: Sequence[str]  # texts that end it
    most: int  # new tokens
    label: int = 0
    new: list[int] = field(default_factory=list)


def generate(reader: Reader, tokenizer: Tokenizer, wanted: Sequence[Wanted]) -> list[str]:
    """What follows each text, without the stop that ended it."""
    context = reader.tracer.config.model.context
    by_length: dict[int, list[Wanted]] = {}
    for one in wanted:
        by_length.setdefault(min(len(one.tokens), context), []).append(one)
    for length, same in sorted(by_length.items(), reverse=True):
        size = reader.batch_size(min(context, length + max(one.most for one in same)))
        for begin in range(0, len(same), size):
            _continue(reader, tokenizer, same[begin : begin + size], context)
    return [_without_stop(tokenizer.decode(one.new), one.stops) for one in wanted]


def _continue(reader: Reader, tokenizer: Tokenizer, texts: Sequence[Wanted], context: int) -> None:
    """Texts of one length grow together; each leaves when it is done."""
    growing = [one for one in texts if one.most > 0]
    while growing:
        windows = [(one.tokens + one.new)[-context:] for one in growing]
        logits_BTV = reader.logits(windows, [one.label for one in growing])
        for one, token in zip(growing, logits_BTV[:, -1].argmax(-1).tolist(), strict=True):
            one.new.append(token)
        growing = [one for one in growing if not _is_done(one, tokenizer)]


def _is_done(one: Wanted, tokenizer: Tokenizer) -> bool:
    if len(one.new) >= one.most or one.new[-1] == tokenizer.end_of_text:
        return True
    text = tokenizer.decode(one.new)
    return any(stop in text for stop in one.stops)


def _without_stop(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text
