"""A trained run as lm-evaluation-harness asks for one: log-likelihoods and greedy text.

Follows the harness's own loader of Hugging Face models where both can answer: the same cut between context and
continuation, an end of text in the place of an empty context, contexts shortened from the left. A continuation longer
than the context, which that loader refuses, is scored in windows.
"""

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from moe_study.data import load_run_tokenizer
from moe_study.data.tokenizers import END_OF_TEXT
from moe_study.errors import StudyError
from moe_study.posthoc.lm_eval.generation import Wanted, generate
from moe_study.posthoc.lm_eval.likelihood import Reader, Reading, windows_of
from moe_study.posthoc.lm_eval.passes import passes_of
from moe_study.posthoc.trace import Tracer, trained_labels
from moe_study.runs.folder import RunFolder

DEFAULT_NEW_TOKENS = 256  # of a task that does not say, as in the harness
ASKED = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one thing, first first


class StudyLM(TemplateLM):  # type: ignore[misc]
    """One run. StudyError where its routing cannot be scored (passes_of), or `label` is needed and not given.

    `label` is what a router by label is told about texts that do not say it themselves (a field `language` or `topic`
    of the task's document does); `bar_on`, where to show how far it is.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        growing_prefixes: bool = False,
        label: str | None = None,
        bar_on: TextIO | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.passes = folder, passes_of(folder, growing_prefixes)
        tracer = Tracer.of(folder)
        self.reader = Reader(tracer, self.passes, bar_on)
        self.context = tracer.config.model.context
        self.study_tokenizer = load_run_tokenizer(folder)
        self.number_of = _label_numbers(folder, tracer, label)

    # What TemplateLM asks for --------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return self.study_tokenizer.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.study_tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return self._likelihoods([(before, tokens, 0) for _, before, tokens in requests])

    # Requests ------------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether it is what greedy decoding gives) for each request."""
        parts = []
        for request in requests:
            context, continuation = request.args
            if context:
                before, tokens = self._encode_pair(context, continuation)
            else:
                before, tokens = [], self.tok_encode(continuation)
            parts.append((before or [self.prefix_token_id], tokens, self.number_of(request.doc)))
        return self._likelihoods(parts)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, after an end of text."""
        parts = []
        for request in requests:
            (text,) = request.args
            parts.append(([self.prefix_token_id], self.tok_encode(text), self.number_of(request.doc)))
        return [log_probability for log_probability, _ in self._likelihoods(parts)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The most probable token again and again, up to a stop, the end of text, or the number asked for.

        StudyError where a task asks for samples.
        """
        wanted = []
        for request in requests:
            text, settings = request.args
            tokens = self.tok_encode(text) or [self.prefix_token_id]
            wanted.append(Wanted(tokens, *_asked(settings), self.number_of(request.doc)))
        return generate(self.reader, self.study_tokenizer, wanted)

    def _likelihoods(self, parts: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> list[tuple[float, bool]]:
        """Of (tokens before, tokens, label): each once, in windows of the model's context."""
        readings: list[Reading] = []
        own: list[range] = []
        for before, tokens, label in parts:
            first = len(readings)
            readings += windows_of(before, tokens, self.context, label)
            own.append(range(first, len(readings)))
        found = self.reader.likelihoods(readings)
        return [(sum(found[i].log_probability for i in places), all(found[i].greedy for i in places)) for places in own]


def _asked(settings: dict[str, Any]) -> tuple[list[str], int]:
    """Where to stop, and after how many tokens at most."""
    if settings.get("do_sample") or float(settings.get("temperature") or 0) > 0:
        raise StudyError("the task asks for samples (do_sample, temperature); only greedy text is generated here")
    until = settings.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    most = next((settings[name] for name in ASKED if settings.get(name) is not None), DEFAULT_NEW_TOKENS)
    return [stop for stop in [*stops, END_OF_TEXT] if stop], int(most)


def _label_numbers(folder: RunFolder, tracer: Tracer, label: str | None) -> Callable[[Any], int]:
    """From a task's document to the number of its label; 0 for routers that are told none."""
    if not tracer.by_label:
        if label is not None:
            raise StudyError(f"{folder.path} is not routed by label, so --label changes nothing; leave it out")
        return lambda _: 0
    kind, known = tracer.config.routing.label, trained_labels(folder, tracer.config)

    def number(document: Any) -> int:
        own = document.get(kind) if isinstance(document, dict) else None
        told = own if own in known else label
        if told not in known:
            raise StudyError(
                f"{folder.path} is routed by {kind}, which the task does not say of its texts;"
                f" give one for all, --label {' or '.join(known)}"
            )
        return known.index(told)

    return number
