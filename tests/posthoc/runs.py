"""Runs with initial weights, quickly made, and a small probe to read: no test here depends on training."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from moe_study.data.probes.base import Probe
from moe_study.design.config import DataConfig, LogConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Routing
from moe_study.runs.folder import RunFolder
from moe_study.training import checkpoint
from moe_study.training.models import build_model

VOCABULARY, CONTEXT = 300, 12


def run_config(runs_dir: Path, routing: Routing, **run: Any) -> RunConfig:
    return RunConfig(
        model=ModelConfig(layers=3, heads=2, width=16, context=CONTEXT, ffn_size=12, init_std=0.3),
        routing=routing,
        data=DataConfig(recipe="local_files", options={"path": "texts"}, tokenizer=TokenizerConfig("bpe", VOCABULARY)),
        run=RunSettings(steps=2, batch_size=4, eval_batch=4, device="cpu", **run),
        log=LogConfig(runs_dir=str(runs_dir)),
    )


def untrained_run(runs_dir: Path, routing: Routing, *, tokenizer: TokenizerConfig | None = None) -> RunFolder:
    """The folder of a run that has saved its initial weights as final ones."""
    config = run_config(runs_dir, routing)
    if tokenizer is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=tokenizer))
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(config.total_steps)
        save_weights(folder, config)
        folder.finish({"by_language": {"de": {}, "en": {}}, "by_topic": {"news": {}}})
    return folder


def save_weights(folder: RunFolder, config: RunConfig) -> None:
    """The initial weights of `config` (another seed's, say) as the final ones of the folder's run."""
    model = build_model(config, None)
    state = {"key": folder.key, "end_of_text": 0, "step": 2, "model": model.state_dict()}
    checkpoint.save_final(folder.checkpoint_folder, state)


def small_probe(lengths: tuple[int, ...] = (5, 12, 13, 1, 30, 7, 24, 12, 5), seed: int = 0) -> Probe:
    """Documents shorter and longer than the context, with two labels of documents and one of tokens."""
    draw = np.random.default_rng(seed)
    documents, tokens = len(lengths), sum(lengths)
    return Probe(
        name="small",
        fingerprint=f"{seed:02x}" * 32,
        token_T=draw.integers(1, VOCABULARY, tokens),
        start_D1=np.concatenate([[0], np.cumsum(lengths)]),
        document_labels={
            "language": (np.arange(documents) % 2, ("de", "en")),
            "topic": (draw.integers(-1, 3, documents), ("art", "law", "war")),
        },
        token_labels={"part of speech": (draw.integers(-1, 2, tokens), ("noun", "verb"))},
    )
