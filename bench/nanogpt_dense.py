"""A training step of this project's dense model over one of nanoGPT's, side by side on one CPU.

Question: does the default model train at least at 0.95 of the speed of nanoGPT's at equal size and settings (dense,
fp32, eager), so at a ratio of at most 1.05? A step is forward, backward, and an AdamW update; nanoGPT's side is built,
and its optimizer made, by its own code. Before timing, the weights are copied over and the losses compared.

nanoGPT is not part of this project. Fetch its model.py (https://github.com/karpathy/nanoGPT, measured at commit
3adf61e) to a folder outside this one, then:

    python -m bench.nanogpt_dense --nanogpt PATH/TO/model.py [--sizes nano micro] [--threads 1 2] [--rounds 15]
"""

import contextlib
import importlib.util
import io
import itertools
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench.common import (
    Row,
    model_config,
    open_results,
    options,
    prepare_process,
    ratio,
    seconds_of,
    take_turns,
    unusual,
)
from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Selection
from moe_study.model.gpt import GPT

BATCH = {"nano": 16, "micro": 8, "mini": 8, "gpt2_small": 1}  # sequences a step
LEARNING_RATE, BETAS, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 0.1
AGREEMENT = 1e-9  # nats, in float64
OUR_NAMES = {  # nanoGPT's names, in order of replacement
    "transformer.wte": "token_embedding",
    "transformer.wpe": "position_embedding",
    "transformer.ln_f": "norm",
    "transformer.h.": "blocks.",
    "ln_1": "norm_attn",
    "ln_2": "norm_ffn",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.out",
    "mlp.c_fc": "ffn.up",
    "mlp.c_proj": "ffn.down",
}


def load_nanogpt(path: Path) -> ModuleType:
    """nanoGPT's model.py as a module."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"--nanogpt {path} is no Python file; fetch model.py from https://github.com/karpathy/nanoGPT")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def build(nanogpt: ModuleType, model: ModelConfig, vocab_size: int) -> tuple[GPT, Any]:
    """Both models with the same weights: those of nanoGPT's own initialisation."""
    torch.manual_seed(0)
    theirs = nanogpt.GPT(
        nanogpt.GPTConfig(
            block_size=model.context,
            vocab_size=vocab_size,
            n_layer=model.layers,
            n_head=model.heads,
            n_embd=model.width,
            dropout=model.dropout,
            bias=model.bias,
        )
    )
    ours = GPT(model, Routing(selection=Selection.DENSE), vocab_size)
    weights = {}
    for name, value in theirs.named_parameters():
        for old, new in OUR_NAMES.items():
            name = name.replace(old, new)
        weights[name] = value.detach()
    ours.load_state_dict(weights)
    return ours, theirs


def our_optimizer(model: GPT) -> torch.optim.Optimizer:
    """AdamW as the training loop makes it."""
    decay, no_decay = model.decay_groups()
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": no_decay, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)


def training_step(loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Forward, backward, update; the loss is read, as a log would."""

    def step() -> None:
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


@torch.no_grad()
def loss_difference(ours: GPT, theirs: Any, x_BT: Tensor, y_BT: Tensor) -> float:
    """Between the two losses in float64, in nats; float32 alone leaves one unit in the last place, 1e-6."""
    ours.double()
    theirs.double()
    difference = abs(ours(x_BT, y_BT).loss.item() - theirs(x_BT, y_BT)[1].item())
    ours.float()  # exact: the weights were float32 before
    theirs.float()
    return difference


def compare(nanogpt: ModuleType, size: str, vocab_size: int, threads: int, rounds: int) -> Row:
    """One row."""
    torch.set_num_threads(threads)
    model = model_config(size)
    with contextlib.redirect_stdout(io.StringIO()):  # nanoGPT announces itself
        ours, theirs = build(nanogpt, model, vocab_size)
        their_optimizer = theirs.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, "cpu")
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH[size], model.context)
    x_BT, y_BT = (torch.randint(vocab_size, shape, generator=generator) for _ in range(2))
    difference = loss_difference(ours, theirs, x_BT[:2], y_BT[:2])

    sides = {
        "nanogpt": training_step(lambda: theirs(x_BT, y_BT)[1], their_optimizer),
        "ours": training_step(lambda: ours(x_BT, y_BT).loss, our_optimizer(ours)),
    }
    seconds = take_turns(sides, rounds)
    return {
        **ratio(seconds["ours"], seconds["nanogpt"]),
        "seconds_of": seconds_of(),
        "batch": list(shape),
        "rounds": rounds,
        "loss_difference": difference,
        "tokens_per_second": {name: x_BT.numel() / statistics.median(times) for name, times in seconds.items()},
    }


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--nanogpt", type=Path, required=True, help="path of nanoGPT's model.py")
    parser.add_argument("--sizes", nargs="+", default=["nano", "micro", "mini"], choices=list(BATCH))
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[2048, 50304])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    arguments = parser.parse_args()
    prepare_process()
    nanogpt, results = load_nanogpt(arguments.nanogpt), open_results(arguments)
    points = itertools.product(arguments.sizes, arguments.vocabularies, arguments.threads)
    differences = []
    for size, vocabulary, threads in points:
        name = f"dense over nanogpt {size} of {vocabulary} symbols{unusual(threads=(threads, 1))}"
        row = results.measure(name, partial(compare, nanogpt, size, vocabulary, threads, arguments.rounds))
        differences.append(row["loss_difference"])
    if max(differences) > AGREEMENT:
        sys.exit(f"the losses differ by {max(differences):.1e} nats, more than {AGREEMENT}")


if __name__ == "__main__":
    main()
