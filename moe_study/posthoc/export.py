"""A trained run as a folder that Hugging Face transformers opens: weights, configuration, tokenizer and a card.

Plain dense models are written as GPT2LMHeadModel and need nothing of this project any more; all others as
MoeStudyForCausalLM (moe_study/hf/), which `import moe_study.hf` registers. What was written is opened again and
compared with the trained model before it gets its name, so a folder that is there is whole and right.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moe_study.data import load_run_tokenizer
from moe_study.data.tokenizer_json import tokenizer_json
from moe_study.data.tokenizers import END_OF_TEXT, Tokenizer
from moe_study.design.config import LogConfig, RunConfig
from moe_study.design.data_options import PLACE_NAMES
from moe_study.design.plain import to_plain
from moe_study.design.routing import Context
from moe_study.errors import StudyError, reason_of
from moe_study.files import atomic_folder, read_json, write_json_atomic, write_text_atomic
from moe_study.model.gpt import GPT
from moe_study.posthoc.export_card import Facts, card
from moe_study.posthoc.trace import trained_labels
from moe_study.runs.folder import RunFolder
from moe_study.runs.result import causality_of
from moe_study.runs.status import State
from moe_study.training import checkpoint
from moe_study.training.models import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RECORD = "moe_study.json"  # in every exported folder: which run it is, and what came of it
CLOSE = 1e-5  # what logits may differ by in float32, in units of the largest (or of 1, where that is smaller)
CHECKED = 3  # sequences that are compared
OF_THE_MACHINE = ("host", "platform", "cpus", "earlier")  # of a run's provenance, what is not told


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    architecture: str
    difference: float  # the largest between logits, ours and those of the folder opened again
    facts: Facts


def export_run(folder: RunFolder, out: Path | None = None) -> Exported:
    """Write the run's model to `out` (the run's own export_folder), whole or not at all.

    StudyError for a run that is not finished or not of text, for an `out` that holds something else than an export
    of this run, and where transformers is missing.
    """
    config, result = folder.read_config(), _result(folder)
    out = folder.export_folder if out is None else out
    _check_place(out, folder.key)
    tokenizer, gpt = load_run_tokenizer(folder), load_model(folder)
    assert isinstance(gpt, GPT)
    facts = _facts(folder, config, result, tokenizer)
    model = _as_transformers(gpt, facts, tokenizer.end_of_text)
    with atomic_folder(out) as unfinished:
        _save(model, unfinished, out)
        write_tokenizer(tokenizer, config.model.context, unfinished)
        difference = largest_difference(gpt, unfinished)
        architecture = type(model).__name__
        write_text_atomic(unfinished / "README.md", card(facts, architecture, difference))
        write_json_atomic(unfinished / RECORD, to_plain(facts) | {"architecture": architecture})
    return Exported(out, architecture, difference, facts)


def _result(folder: RunFolder) -> Mapping[str, Any]:
    """What came of the run; StudyError where it cannot be exported."""
    if folder.read_config().task != "language":
        raise StudyError(f"{folder.path} was trained on images; only models of text are exported")
    state = folder.state()
    result = folder.result()
    if state is not State.DONE or result is None:
        raise StudyError(f"{folder.path} is {state.value}, not done; train it to its end, then export it")
    return result


def _check_place(out: Path, key: str) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    record = read_json(out / RECORD) if out.is_dir() else None
    if not isinstance(record, dict) or "key" not in record:
        raise StudyError(f"{out} holds something else than an export; name another folder with --out")
    if record["key"] != key:
        raise StudyError(f"{out} holds the export of run {record['key']}; remove it, or name another folder with --out")


def _facts(folder: RunFolder, config: RunConfig, result: Mapping[str, Any], tokenizer: Tokenizer) -> Facts:
    """Everything that is told of the run; nothing of where it lay."""
    by_label = config.routing.context is Context.LABEL
    return Facts(
        key=folder.key,
        config=portable(config),
        result=dict(result),
        provenance={name: value for name, value in (folder.provenance() or {}).items() if name not in OF_THE_MACHINE},
        weights=checkpoint.fingerprint_of_newest(folder.checkpoint_folder),
        end_of_text=tokenizer.end_of_text,
        causality=causality_of(result),
        labels=trained_labels(folder, config) if by_label else [],
    )


def portable(config: RunConfig) -> RunConfig:
    """`config` without what says where something lay, what was printed or kept, and how experts were run."""
    data = replace(config.data, root="data", options=_without_places(config.data.options))
    return replace(config, data=data, log=LogConfig(), run=replace(config.run, dispatch="auto"))


def _without_places(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_places(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name not in PLACE_NAMES
    }


def _as_transformers(gpt: GPT, facts: Facts, end_of_text: int) -> "PreTrainedModel":
    from moe_study.hf import as_gpt2, as_moe_study, fits_gpt2

    if fits_gpt2(facts.config):
        return as_gpt2(gpt, facts.config, end_of_text)
    return as_moe_study(gpt, facts.config, end_of_text, facts.causality, facts.labels)


def _save(model: "PreTrainedModel", folder: Path, out: Path) -> None:
    from safetensors import SafetensorError

    try:
        with _quiet():
            model.save_pretrained(folder)
    except SafetensorError as error:  # it hides a full disk
        raise StudyError(f"cannot write {out}: {reason_of(error)}") from error
    for file in folder.iterdir():  # safetensors lets nobody else read its files
        file.chmod(folder.stat().st_mode & 0o666)


def write_tokenizer(tokenizer: Tokenizer, context: int, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json of a model that reads `context` tokens."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": True,  # a text that spells the end of text is text, as in training
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "padding_side": "left",  # to generate from several texts at once
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_text_atomic(folder / "tokenizer.json", tokenizer_json(tokenizer))
    write_json_atomic(folder / "tokenizer_config.json", settings)


@torch.no_grad()
def largest_difference(gpt: GPT, folder: Path) -> float:
    """The largest difference of any logit between `gpt` and the model in `folder`, on random tokens, in float32.

    StudyError where it is larger than CLOSE.
    """
    from transformers import AutoModelForCausalLM

    with _quiet():
        opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vocabulary = gpt.token_embedding.num_embeddings
    tokens_BT = torch.randint(vocabulary, (CHECKED, gpt.context), generator=torch.Generator().manual_seed(0))
    label_B = torch.zeros(CHECKED, dtype=torch.long)
    expected_BTV = gpt(tokens_BT, label_B=label_B).logits_BTV
    given = {"label_ids": label_B} if opened.config.model_type == "moe_study" else {}
    found_BTV = opened(tokens_BT, use_cache=False, **given).logits
    difference = float((found_BTV - expected_BTV).abs().max())
    if not difference <= CLOSE * max(1.0, float(expected_BTV.abs().max())):
        raise StudyError(f"the exported model's logits differ by {difference:.1e} from the run's, so it is not kept")
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers, which models of this size need not."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
