"""The card of an exported model: what the run was, what came of it, and what its numbers are worth."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.analysis.format import BATCH_MARK, LEAK_MARK, NOTHING, count, number
from moe_study.analysis.labels import full_label
from moe_study.design.causality import why_it_cannot_go_on
from moe_study.design.config import RunConfig
from moe_study.design.identity import settings_of
from moe_study.design.routing import Selection
from moe_study.design.verdict import Verdict

GPT2 = "GPT2LMHeadModel"
DOMAINS = ("language", "topic")


@dataclass(frozen=True)
class Facts:
    """What is told of a run."""

    key: str
    config: RunConfig  # without places
    result: dict[str, Any]
    provenance: dict[str, Any]
    weights: str | None  # fingerprint of the checkpoint
    end_of_text: int
    causality: Verdict  # declared or measured
    labels: list[str]  # what a router by label is told, in the order of its numbers

    @property
    def name(self) -> str:
        """The point in words: "token top-2 of 4, picked softmax"."""
        return full_label(settings_of(self.config))

    @property
    def why_it_cannot_go_on(self) -> str:
        """Why it cannot generate, as the beginning of a sentence; empty where it can."""
        return why_it_cannot_go_on(self.config.routing, self.config.model.context, self.causality)

    @property
    def marks(self) -> str:
        """What stands beside every number that was measured."""
        return "".join(mark for mark, _ in caveats(self.causality))


def card(facts: Facts, architecture: str, difference: float) -> str:
    """README.md of the folder, with its front matter. `difference` is that of logits, found when it was written."""
    loading, domains = _loading(facts, architecture, difference), (_domains(facts, kind) for kind in DOMAINS)
    parts = (_front_matter(facts), _head(facts), loading, _results(facts), *domains, _origin(facts))
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _front_matter(facts: Facts) -> Iterator[str]:
    yield from ("---", "library_name: transformers")
    if not facts.why_it_cannot_go_on:
        yield "pipeline_tag: text-generation"
    yield from ("tags:", "- moe_study")
    if facts.config.routing.selection is not Selection.DENSE:
        yield "- mixture-of-experts"
    yield "---"


def _head(facts: Facts) -> Iterator[str]:
    yield f"# {facts.name}, run {facts.key} of moe_study"
    for mark, note in caveats(facts.causality):
        yield ""
        yield f"> **{mark} {note}**"
    if why := facts.why_it_cannot_go_on:
        yield ""
        yield f"> It generates nothing, because {why}."


def caveats(found: Verdict) -> Iterator[tuple[str, str]]:
    """Marks and what they mean for who uses the model."""
    if found.leaks:
        yield LEAK_MARK, (
            "The routing of this model reads later tokens: its perplexity is not an autoregressive one, its logits know"
            " what they predict."
        )
    if found.mixes_batch:
        yield BATCH_MARK, (
            "The routing of this model reads other sequences of the batch: what it says of a text depends on what is"
            " read together."
        )


def _loading(facts: Facts, architecture: str, difference: float) -> Iterator[str]:
    plain = architecture == GPT2
    yield "## Loading"
    yield ""
    if not plain:
        yield "The package moe_study brings the model's class (`pip install 'moe-study[hf]'`); no remote code is run."
        yield ""
    yield "```python"
    if not plain:
        yield "import moe_study.hf"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield "model, tokenizer = (auto.from_pretrained(FOLDER) for auto in (AutoModelForCausalLM, AutoTokenizer))"
    yield "```"
    yield ""
    yield (
        f"The class is `{architecture}`. When this folder was written it was opened again: on random tokens its logits"
        f" differed by at most {difference:.1g} from those of the run (float32)."
    )
    yield (
        f"The model reads at most {facts.config.model.context} tokens. A document ends with `<|endoftext|>`"
        f" (id {facts.end_of_text}), so a document begins after it; in a text these letters are ordinary characters, as"
        " they were in training."
    )
    if facts.labels:
        known = ", ".join(f"{number} {label}" for number, label in enumerate(facts.labels))
        yield f"Its router is told each text's {facts.config.routing.label} as `label_ids`: {known}."


def _results(facts: Facts) -> Iterator[str]:
    result, mark = facts.result, facts.marks
    rows = [
        ("validation loss, nats per token", number(result.get("validation_loss"), "{:.4f}") + mark),
        ("validation perplexity", number(result.get("validation_perplexity"), "{:.2f}") + mark),
        ("bits per byte", number(result.get("bits_per_byte"), "{:.4f}") + mark),
        ("validation tokens", _count(result, "validation_tokens")),
        ("tokens trained on", _count(result, "tokens")),
        ("parameters", _count(result, "num_params")),
        ("active parameters", _count(result, "num_active_params")),
        ("FLOPs per token, forward", _count(result, "flops_per_token")),
    ]
    yield "## Result"
    yield ""
    yield from ("| | |", "|---|---:|")
    yield from (f"| {name} | {value} |" for name, value in rows)


def _count(result: Mapping[str, Any], name: str) -> str:
    value = result.get(name)
    return NOTHING if value is None else count(value)


def _domains(facts: Facts, kind: str) -> Iterator[str]:
    """The loss by language or topic, where there are several."""
    found = {name: domain for name, domain in (facts.result.get(f"by_{kind}") or {}).items() if domain.get("tokens")}
    if len(found) > 1:
        yield from (f"| {kind} | loss | tokens |", "|---|---:|---:|")
        for name, domain in found.items():
            loss = number(domain.get("loss"), "{:.4f}") + facts.marks
            yield f"| {_cell(name)} | {loss} | {count(domain['tokens'])} |"


def _cell(text: str) -> str:
    """A name out of a corpus, which may hold anything."""
    return html.escape(text).replace("|", "&#124;").replace("\n", " ")


def _origin(facts: Facts) -> Iterator[str]:
    config, provenance = facts.config, facts.provenance
    fingerprint = provenance.get("data_fingerprint") or facts.result.get("data_fingerprint")
    changed = " with changes" if provenance.get("diff") else ""
    versions = ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())
    yield "## Origin"
    yield ""
    yield f"- run `{facts.key}`, seed {config.run.seed}, {config.total_steps} steps of {config.tokens_per_step} tokens"
    yield f"- data: {config.data.name}, {config.data.tokenizer.kind} tokenizer of {config.data.tokenizer.size} ids"
    yield f"- data fingerprint: `{fingerprint or NOTHING}`"
    yield f"- weights: `{facts.weights or NOTHING}`"
    code = f"commit `{provenance.get('commit') or NOTHING}`{changed}, version {provenance.get('version') or NOTHING}"
    yield f"- code: {code}"
    yield f"- trained with {versions or NOTHING}, on {provenance.get('device') or NOTHING}, {config.run.precision}"
    yield ""
    yield "The whole configuration, result and provenance stand in `moe_study.json`."
