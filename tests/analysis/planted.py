"""Run folders with planted effects of known size: what the analysis should find is known before it looks."""

import atexit
import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from moe_study.design.config import LogConfig, ModelConfig, OptimizerConfig, RunConfig, RunSettings
from moe_study.design.plain import to_plain
from moe_study.design.routing import Balance, Context, Gate, RouterState, Routing, Selection, Unit

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster, where PyYAML was built with it
LANGUAGES = ("de", "en", "fr", "it")
TOPICS = ("news", "parliament")
STEPS, EVERY = 400, 20
TOKENS_PER_STEP = 16 * 128

DENSE_1X = Routing(selection=Selection.DENSE)
DENSE_2X = Routing(selection=Selection.DENSE, ffn_multiplier=2.0)
TOKEN_1 = Routing(k=1)
TOKEN_2 = Routing(k=2, gate=Gate.PICK_THEN_SOFTMAX)
FROZEN_2 = dataclasses.replace(TOKEN_2, router_state=RouterState.FROZEN)
BALANCED_2 = dataclasses.replace(TOKEN_2, balance=Balance(switch=0.01))
SEQUENCE_2 = Routing(k=2, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, gate=Gate.DOUBLE_SOFTMAX)
FIRST_LOOK = (DENSE_1X, DENSE_2X, TOKEN_1, TOKEN_2, FROZEN_2, SEQUENCE_2)
EFFECTS = (0.0, -0.08, -0.06, -0.14, -0.138, -0.10)  # nats against dense 1x


def config_of(routing: Routing, seed: int, **model: Any) -> RunConfig:
    return RunConfig(
        model=ModelConfig(**model),
        routing=routing,
        optimizer=OptimizerConfig(),
        run=RunSettings(seed=seed, steps=STEPS),
        log=LogConfig(sweep="planted"),
    )


def plant(
    root: Path,
    routings: Sequence[Routing] = FIRST_LOOK,
    effects: Sequence[float] = EFFECTS,
    seeds: Sequence[int] = (0, 1),
    *,
    base: float = 4.2,
    common_sd: float = 0.03,
    noise_sd: float = 0.004,
    rng: int = 0,
    fingerprint: str = "planted",
    languages: Sequence[str] = LANGUAGES,
    topics: Sequence[str] = TOPICS,
    **model: Any,
) -> list[Path]:
    """One finished run for each routing and seed; returns the folders, routing by routing.

    loss = base + effect of the routing + what the seed does to every run (sd common_sd) + noise (sd
    noise_sd). Each set of runs is made once a process, and copied to whoever asks for it.
    """
    folders = _planted(
        tuple(routings), tuple(effects), tuple(seeds), base, common_sd, noise_sd, rng, fingerprint, tuple(languages),
        tuple(topics), tuple(model.items()),
    )  # fmt: skip
    return [Path(shutil.copytree(folder, Path(root) / folder.name)) for folder in folders]


@functools.cache
def _planted(
    routings: Sequence[Routing],
    effects: Sequence[float],
    seeds: Sequence[int],
    base: float,
    common_sd: float,
    noise_sd: float,
    rng: int,
    fingerprint: str,
    languages: Sequence[str],
    topics: Sequence[str],
    model: Sequence[tuple[str, Any]],
) -> list[Path]:
    """The same in a folder that nobody changes."""
    root = Path(tempfile.mkdtemp(prefix="planted-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    random = np.random.default_rng(rng)
    common = {seed: random.normal(0, common_sd) for seed in seeds}
    folders = []
    for routing, effect in zip(routings, effects, strict=True):
        for seed in seeds:
            loss = base + effect + common[seed] + random.normal(0, noise_sd)
            config = config_of(routing, seed, **dict(model))
            folders.append(plant_run(root, config, loss, random, fingerprint, languages, topics))
    return folders


def plant_run(
    root: Path,
    config: RunConfig,
    loss: float,
    random: np.random.Generator,
    fingerprint: str = "planted",
    languages: Sequence[str] = LANGUAGES,
    topics: Sequence[str] = TOPICS,
) -> Path:
    """One finished run whose validation loss is exactly `loss`."""
    folder = Path(root) / config.key
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.dump(to_plain(config), Dumper=DUMPER))
    set_status(folder, "done")
    routing = config.routing
    layers = range(config.model.layers) if routing.selection != Selection.DENSE else range(0)
    shares = {layer: _shares(random, _experts(routing), layer) for layer in layers}
    _write_metrics(folder, config, loss, shares, random)
    if shares:
        _write_activations(folder, routing, shares, random, languages, topics)
    (folder / "result.json").write_text(
        json.dumps(_result(folder.name, config, loss, list(layers), fingerprint, languages, topics))
    )
    return folder


def set_status(folder: Path, state: str, error: Mapping[str, str] | None = None, step: int = STEPS) -> None:
    status = {
        "state": state,
        "attempts": 1,
        "step": step,
        "total_steps": STEPS,
        "updated": 0.0,
        "error": error,
    }
    (folder / "status.json").write_text(json.dumps(status))


def _experts(routing: Routing) -> int:
    assert isinstance(routing.num_experts, int)
    return routing.num_experts


def _shares(random: np.random.Generator, experts: int, layer: int) -> np.ndarray:
    """Shares of shape (records, E): near uniform at first, drifting towards a Dirichlet draw."""
    records = STEPS // EVERY + 1
    target = random.dirichlet(np.full(experts, 2.0 + 2 * layer))
    time = (1 - np.exp(-np.linspace(0, 5, records)))[:, None]
    wobble = random.dirichlet(np.full(experts, 400.0), records)
    return 0.9 * ((1 - time) / experts + time * target) + 0.1 * wobble


def _write_metrics(folder: Path, config: RunConfig, loss: float, shares: dict, random: np.random.Generator) -> None:
    start, lines = np.log(config.data.tokenizer.vocab_size or 4096), []
    for step in range(0, STEPS + 1, EVERY):
        now = loss + (start - loss) * np.exp(-9 * step / STEPS) - (start - loss) * np.exp(-9)
        shared = {"step": step, "tokens": step * TOKENS_PER_STEP, "seconds": 0.2 * step}
        train = {"aux": {}, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 10_000.0}
        lines.append({"kind": "train", **shared, "loss": now + random.normal(0, 0.05), **train})
        if step % (4 * EVERY) == 0:
            value = loss if step == STEPS else now
            lines.append({"kind": "validation", **shared, "loss": value})
        for layer, share in shares.items():
            rates = dict.fromkeys(("wanted_per_token", "kept_per_token", "executed_per_token"), config.routing.k)
            record = {"kind": "routing", "step": step, "layer": layer, "entropy": 1.2, **rates}
            lines.append({**record, "share": (share[step // EVERY] / share[step // EVERY].sum()).tolist()})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_activations(
    folder: Path,
    routing: Routing,
    shares: dict,
    random: np.random.Generator,
    languages: Sequence[str],
    topics: Sequence[str],
) -> None:
    """Counts by domain: languages lean towards experts of their own, sequence routing more than token
    routing.
    """
    strength = 40.0 if routing.unit == Unit.TOKEN else 4.0
    tokens, rows = 16_384, []
    for layer, share in shares.items():
        for language in languages:
            for topic in topics:
                domain = random.dirichlet(strength * share[-1] + 0.05)
                counts = random.multinomial(tokens * routing.k, domain)
                for expert, count in enumerate(counts):
                    row = {"layer": layer, "expert": expert, "language": language, "topic": topic}
                    rows.append({**row, "count": int(count), "weight": count / routing.k, "tokens": tokens})
    pd.DataFrame(rows).to_parquet(folder / "routing.parquet")


def _result(
    key: str,
    config: RunConfig,
    loss: float,
    layers: Sequence[int],
    fingerprint: str,
    languages: Sequence[str],
    topics: Sequence[str],
) -> dict:
    routing, width, depth = config.routing, config.model.width, config.model.layers
    one = int(8 * width * width * routing.ffn_multiplier) * depth  # parameters of one feed-forward network
    rest = 4096 * width + 4 * width * width * depth
    dense = routing.selection == Selection.DENSE
    total, active = (1, 1) if dense else (_experts(routing), routing.k)
    leaks = routing.context == Context.UNIT_MEAN
    rate = {str(layer): float(routing.k) for layer in layers}
    return {
        "key": key,
        "validation_loss": loss,
        "validation_perplexity": float(np.exp(loss)),
        "bits_per_byte": loss / np.log(2) / 3.1,
        "by_language": {name: {"loss": loss + 0.01 * i, "tokens": 32_768} for i, name in enumerate(languages)},
        "by_topic": {name: {"loss": loss - 0.01 * i, "tokens": 65_536} for i, name in enumerate(topics)},
        "tokens": STEPS * TOKENS_PER_STEP,
        "steps": STEPS,
        "num_params": rest + total * one,
        "num_active_params": rest + active * one,
        "flops_per_token": 2 * (rest + active * one),
        "executed_active_params": rest + active * one,
        "executed_flops_per_token": 2 * (rest + active * one),
        "train_seconds": 80.0 * (1 + 0.3 * active) * (1 if dense else 1.2),
        "tokens_per_second": STEPS * TOKENS_PER_STEP / (80.0 * (1 + 0.3 * active) * (1 if dense else 1.2)),
        "peak_memory_bytes": 300_000_000,
        "causality": {"own_future": leaks, "others_future": False, "mixes_batch": False},
        "data_fingerprint": fingerprint,
        "wanted_per_token": rate,
        "kept_per_token": rate,
        "executed_per_token": rate,
    }
