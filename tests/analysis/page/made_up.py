"""Made-up studies for the page, one of them out to do harm wherever a text can stand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.run_tables import run_table
from moe_study.data.tokenizers import END_OF_TEXT, byte_of_letter
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.runs.findings import write_finding
from moe_study.runs.members import Launch, PlannedComparison, record_launch
from moe_study.runs.traces import TraceIdentity
from tests.analysis import planted
from tests.analysis.plots import found
from tests.analysis.specialisation.planted_routes import planted_trace

DRAWS = 12  # of each null
IMAGE = "</script><img src=x onerror=window.hacked=1>"
HARMFUL = (
    "<script>window.hacked=1</script>", "</script>", "<!--", "{{7*7}}", "{% raw %}", "\u202eback to front", "\x00",
    "\u2028", "a" * 10_000, IMAGE, "${1}", "\n", "&lt;b&gt;", "'\"><svg onload=window.hacked=1>", "👩‍🔬", "\ud7ff",
)  # fmt: skip
TOPICS = (IMAGE, "{{7*7}}\u202e", "plain")
LANGUAGES = ("<b>bold</b>", "\x00\u2066")


def tokenizer_file(folder: Path, pieces: Sequence[bytes]) -> TokenizerConfig:
    """A BPE whose ids from 1 on stand for `pieces`, in a run's folder."""
    from tokenizers import Tokenizer, models

    letter_of = {byte: letter for letter, byte in byte_of_letter().items()}
    vocabulary = {END_OF_TEXT: 0} | {"".join(letter_of[b] for b in p): n for n, p in enumerate(pieces, start=1)}
    assert len(vocabulary) == len(pieces) + 1
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE(vocabulary, [])).to_str(), encoding="utf-8")
    return TokenizerConfig(kind="bpe", vocab_size=len(vocabulary))


def look_inside(folders: Sequence[Path], layers: dict[int, LayerTrace], pieces: Sequence[bytes]) -> None:
    """Findings, a trace and a tokenizer in each folder, as `specialise` and `knockout` leave them; alike in all."""
    tables = {name: run_table(name, layers, DRAWS) for name in ("information", "shares")}
    experts, domains = layers[0].experts, list(layers[0].document_labels["language"][1])
    knocked = with_overall(found.knockout("", experts, domains))
    for folder in folders:
        identity = TraceIdentity(folder.name, None, "planted", "ab" * 32)
        for name, table in tables.items():
            write_finding(folder / "findings", identity, name, table, {"tokens": 240, "documents": 8})
        found.keep_knockout(folder, knocked)
        found.keep_trace(folder, identity, layers)
        tokenizer_file(folder, pieces)


def with_overall(changes: pd.DataFrame) -> pd.DataFrame:
    """Knock-outs with rows of all tokens, which the finding has too."""
    of_all = changes[changes["domain"] == changes["domain"].iloc[0]].assign(of="", domain="")
    return pd.concat([changes, of_all], ignore_index=True).assign(null_mean=0.02)


def harmful_layers() -> dict[int, LayerTrace]:
    first = planted_trace(
        np.random.default_rng(0), "topic", strength=2.0, documents=8, vocabulary=len(HARMFUL) - 1, top=2
    )
    labels = {
        "language": (first.document_labels["language"][0], LANGUAGES),
        "topic": (first.document_labels["topic"][0], TOPICS),
        IMAGE: (first.document_labels["topic"][0], TOPICS),
    }
    # The ids of the pieces begin at 1; all of them occur.
    token_T = 1 + np.arange(len(first.token_T)) % len(HARMFUL)
    first = replace(first, token_T=token_T, document_labels=labels)
    return {n: replace(first, expert_P=(first.expert_P + n) % first.experts) for n in range(2)}


def plant_harmful(root: Path) -> Path:
    """A study whose data, labels, tokens, errors, questions and provenance would all run as markup if they could."""
    random, folders = np.random.default_rng(0), []
    pieces = [text.encode("utf-8", "surrogatepass") for text in HARMFUL]
    for data in ("plain", IMAGE):
        for place, routing in enumerate((planted.DENSE_1X, planted.TOKEN_2, planted.SEQUENCE_2)):
            for seed in (0, 1):
                tokenizer = TokenizerConfig(kind="bpe", vocab_size=len(HARMFUL) + 1)
                config = replace(planted.config_of(routing, seed), data=DataConfig(name=data, tokenizer=tokenizer))
                loss = 4 + random.normal(0, 0.01) - 0.1 * place
                folder = planted.plant_run(root, config, loss, random, topics=TOPICS, languages=LANGUAGES)
                record = {"commit": IMAGE, "host": f"{IMAGE}\u202e", "device": "\x00", "versions": {"torch": IMAGE}}
                (folder / "provenance.json").write_text(json.dumps(record))
                folders.append(folder)
    mixtures = [folder for place, folder in enumerate(folders) if place % 6 >= 2]
    look_inside(mixtures, harmful_layers(), pieces)
    planted.set_status(folders[0], "failed", {"type": IMAGE, "message": f"{IMAGE} {{{{7*7}}}}", "traceback": ""}, 12)
    asked = PlannedComparison("a", "b", (folders[2].name,), (folders[1].name,), why=IMAGE)
    record_launch(root, "harm", Launch(runs=tuple(folder.name for folder in folders), comparisons=(asked,)))
    return root


def plant_plain(root: Path, seeds: Sequence[int] = (0, 1, 2), routings: int = 6) -> Path:
    """The points of planted.FIRST_LOOK, the mixtures looked into."""
    folders = planted.plant(root, planted.FIRST_LOOK[:routings], planted.EFFECTS[:routings], seeds)
    mixtures = folders[2 * len(seeds) :]  # the first two are dense
    pieces = [f" word{n}".encode() for n in range(40)]
    for folder in mixtures:
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("vocab_size: null", "vocab_size: 41"))
    first = found.layers_of("language", documents=8, topics=2, top=2)
    look_inside(mixtures, {n: replace(layer, token_T=layer.token_T + 1) for n, layer in first.items()}, pieces)
    return root
