"""Log-likelihoods as one would write them down: one text at a time, one pass for each token, in float64."""

import math
from collections.abc import Sequence

import torch

from moe_study.model.transformer import Transformer
from moe_study.runs.folder import RunFolder
from moe_study.training.models import load_model


class Slow:
    """A run's model in float64."""

    def __init__(self, model: Transformer, context: int) -> None:
        self.model, self.context = model.double(), context

    @classmethod
    def of_run(cls, folder: RunFolder) -> "Slow":
        """Of a run's folder."""
        return cls(load_model(folder), folder.read_config().model.context)

    def log_probabilities(self, read: Sequence[int], label: int = 0) -> list[float]:
        """Of every possible next token, after a pass over what stands before it alone."""
        tokens_BT = torch.tensor([list(read)[-self.context :]])
        with torch.no_grad():
            logits = self.model(tokens_BT, label_B=torch.tensor([label])).logits_BTV[0, -1].tolist()
        largest = max(logits)
        total = largest + math.log(sum(math.exp(value - largest) for value in logits))
        return [value - total for value in logits]

    def of(self, before: Sequence[int], tokens: Sequence[int], label: int = 0) -> tuple[float, bool]:
        """(log-probability of `tokens` after `before`, whether each is the most probable), cut as the harness cuts."""
        total, greedy, whole = 0.0, True, [*before, *tokens]
        for done in range(len(tokens)):
            if len(tokens) <= self.context:
                first = max(0, len(whole) - 1 - self.context)
            else:  # in windows of a context's tokens, the last of which reaches back
                last = min(done // self.context * self.context + self.context, len(tokens))
                first = max(0, len(before) + last - 1 - self.context)
            found = self.log_probabilities(whole[first : len(before) + done], label)
            total += found[tokens[done]]
            greedy = greedy and found[tokens[done]] == max(found)
        return total, greedy
