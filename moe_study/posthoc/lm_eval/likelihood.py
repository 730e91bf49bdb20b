"""Log-probabilities of tokens under a trained model, many texts at a time.

Texts of equal length are read together and nothing is padded, since a routing may treat a longer text otherwise.
Texts that are the same are read once: the choices of a question share its words.

Shape suffixes: B texts of one length, T positions, V vocabulary, L targets of one text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

from moe_study.posthoc.lm_eval.passes import Passes
from moe_study.posthoc.trace import Tracer
from moe_study.training.device import autocast

MOST_LOGITS = 1 << 26  # of one pass: a quarter of a gigabyte
MOST_PREFIXED = 1 << 22  # tokens of growing prefixes at hand at once


class Reading(NamedTuple):
    """Tokens that the model reads, and those that it then gives a probability to."""

    tokens: tuple[int, ...]  # at most a context's
    targets: tuple[int, ...]  # what follows each of the last len(targets) tokens
    label: int = 0  # what a router by label is told


class Likelihood(NamedTuple):
    """Of the targets of one reading."""

    log_probability: float  # nats, summed
    greedy: bool  # whether each is the most probable token at its place


@dataclass(frozen=True)
class Reader:
    """A trained model, and in which passes it is to be read."""

    tracer: Tracer
    passes: Passes
    bar_on: TextIO | None = None  # where to show how far it is

    def likelihoods(self, readings: Sequence[Reading]) -> list[Likelihood]:
        """One for each reading, in their order."""
        return self._growing(readings) if self.passes.growing else self._at_once(readings)

    def _growing(self, readings: Sequence[Reading]) -> list[Likelihood]:
        """Every target from a pass that ends before it."""
        found: list[Likelihood] = []
        for some in _parts(readings):
            steps = [list(_prefixes(reading)) for reading in some]
            each = iter(self._at_once([step for own in steps for step in own]))
            parts = [[next(each) for _ in own] for own in steps]
            found += [
                Likelihood(sum(one.log_probability for one in own), all(one.greedy for one in own)) for own in parts
            ]
        return found

    def _at_once(self, readings: Sequence[Reading]) -> list[Likelihood]:
        places: dict[tuple[tuple[int, ...], int], list[int]] = {}  # of the readings that read the same
        for place, reading in enumerate(readings):
            places.setdefault((reading.tokens, reading.label), []).append(place)
        found: list[Likelihood] = [Likelihood(0.0, True)] * len(readings)
        texts = [text for text, own in places.items() if any(readings[place].targets for place in own)]
        bar: tqdm[Any] = tqdm(total=len(texts), unit="text", disable=self.bar_on is None, file=self.bar_on, leave=False)
        with bar:
            for batch in self._batches(texts):
                logits_BTV = self.logits([tokens for tokens, _ in batch], [label for _, label in batch])
                for text, logits_TV in zip(batch, logits_BTV, strict=True):
                    for place in places[text]:
                        found[place] = _likelihood(logits_TV, readings[place].targets)
                bar.update(len(batch))
        return found

    def _batches(self, texts: Sequence[tuple[tuple[int, ...], int]]) -> Iterator[list[tuple[tuple[int, ...], int]]]:
        """Texts of one length each, the longest first."""
        by_length: dict[int, list[tuple[tuple[int, ...], int]]] = {}
        for text in texts:
            by_length.setdefault(len(text[0]), []).append(text)
        for length, same in sorted(by_length.items(), reverse=True):
            size = self.batch_size(length)
            yield from (same[begin : begin + size] for begin in range(0, len(same), size))

    def batch_size(self, length: int) -> int:
        """Texts of `length` tokens in one pass."""
        if self.passes.alone:
            return 1
        config = self.tracer.config
        by_tokens = config.run.eval_batch * config.model.context // length
        return max(1, min(by_tokens, MOST_LOGITS // (length * config.vocab_size)))

    def logits(self, tokens: Sequence[Sequence[int]], labels: Sequence[int]) -> Tensor:
        """(B, T, V) of texts of one length; on the device."""
        tracer = self.tracer
        tokens_BT, label_B = torch.tensor(tokens), torch.tensor(labels)
        with torch.inference_mode(), autocast(tracer.device, tracer.config.run.precision):
            output = tracer.model(tokens_BT.to(tracer.device), label_B=label_B.to(tracer.device))
        logits_BTV: Tensor = output.logits_BTV
        return logits_BTV


def _together(parts: Sequence[Likelihood]) -> Likelihood:
    """Of targets that were read in parts."""
    return Likelihood(sum(part.log_probability for part in parts), all(part.greedy for part in parts))


def _parts(readings: Sequence[Reading]) -> Iterator[Sequence[Reading]]:
    """Consecutive readings whose prefixes are at hand together."""
    first = tokens = 0
    for place, reading in enumerate(readings):
        tokens += len(reading.tokens) * len(reading.targets)
        if tokens > MOST_PREFIXED:
            yield readings[first : place + 1]
            first, tokens = place + 1, 0
    if first < len(readings):
        yield readings[first:]


def _prefixes(reading: Reading) -> Iterator[Reading]:
    """One reading for each target, of the tokens before it."""
    first = len(reading.tokens) - len(reading.targets) + 1
    for place, target in enumerate(reading.targets):
        yield Reading(reading.tokens[: first + place], (target,), reading.label)


def _likelihood(logits_TV: Tensor, targets: Sequence[int]) -> Likelihood:
    if not targets:
        return Likelihood(0.0, True)
    last_LV = logits_TV[-len(targets) :].double()
    target_L = torch.tensor(targets, device=last_LV.device)
    chosen_L = last_LV.log_softmax(-1).gather(-1, target_L[:, None])
    return Likelihood(float(chosen_L.sum()), bool((last_LV.argmax(-1) == target_L).all()))


def windows_of(before: Sequence[int], tokens: Sequence[int], context: int, label: int = 0) -> Iterator[Reading]:
    """Readings that give each of `tokens` a probability once, after what stands in `before` (at least one token).

    One reading where `tokens` fit a context, with as much of what stands before them as fits, too. Otherwise
    consecutive ones, the last with the tokens before it to fill the context; as in lm-evaluation-harness
    (lm_eval.utils.get_rolling_token_windows).
    """
    if not before:
        raise ValueError("the first token has a probability only after another one")
    whole = [*before, *tokens]
    if len(tokens) <= context:
        yield Reading(tuple(whole[-(context + 1) : -1]), tuple(tokens), label)
        return
    done = 0
    while done < len(tokens):
        size = min(context, len(tokens) - done)
        end = len(before) + done + size
        yield Reading(tuple(whole[max(0, end - 1 - context) : end - 1]), tuple(whole[end - size : end]), label)
        done += size
