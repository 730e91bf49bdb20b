"""A whole training step with mixture layers against that of its dense twin: forward, backward, clipping, AdamW.

Question: what does a mixture cost where it is used, beside attention, the head and the optimizer? Both sides are
models of equal active FLOPs at GPT-2's vocabulary, moved on by the training loop's own `Trainer.train_step`.

    python -m bench.step [--rows 64x8 8x2 ...] [--model micro] [--batch 8] [--rounds 7]
    python -m bench.step --device cuda --model gpt2_small --precision bf16 --batch 32 [--compile]

Each round times a step of the dense twin, one of the mixture, and one of the dense twin again.
"""

import argparse
import dataclasses
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench.common import Row, flanked, model_config, open_results, options, prepare_process, unusual
from moe_study.data.sampler import Batch
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Context, Gate, Routing, Scope, Selection, Unit
from moe_study.design.validation import validate
from moe_study.training.device import PRECISIONS, configure
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model


@dataclass(frozen=True)
class Setting:
    """The model that is trained, and how."""

    model: str = "micro"  # conf/model/NAME.yaml
    batch: int = 8  # sequences a step
    micro_batch: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False

    @property
    def size(self) -> ModelConfig:
        return model_config(self.model)


def routings(hidden: int) -> dict[str, Routing]:
    """The rows, for models whose dense feed-forward network has `hidden` units."""
    eight = Routing(num_experts=64, k=8, expert_size=hidden // 8, gate=Gate.PICK_THEN_SOFTMAX)
    sequence = replace(eight, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, gate=Gate.DOUBLE_SOFTMAX)
    return {
        "64x8": eight,
        "8x1": Routing(num_experts=8, k=1),
        "8x2": replace(eight, num_experts=8, k=2, expert_size=hidden // 2),
        "512x8": replace(eight, num_experts=512),
        "64x8 global": replace(eight, scope=Scope.GLOBAL),
        "64x8 sequence": sequence,
        # A router that has just been initialised spreads its probability evenly: 8 of 64 experts make an eighth.
        "64 threshold": Routing(
            selection=Selection.THRESHOLD, num_experts=64, expert_size=hidden // 8, threshold=0.12
        ),
    }


class SameBatch:
    """A sampler of one batch of random tokens; so nothing is read and both sides train on the same."""

    def __init__(self, batch: int, context: int, vocabulary: int) -> None:
        tokens_BT = np.random.default_rng(0).integers(vocabulary, size=(batch, context + 1))
        label_B = np.zeros(batch, dtype=np.int64)
        self.only = Batch(tokens_BT[:, :-1], tokens_BT[:, 1:], label_B, label_B)

    def batch(self, step: int) -> Batch:
        return self.only


def run_config(routing: Routing, setting: Setting) -> RunConfig:
    """A run of the language model at GPT-2's vocabulary that no benchmark comes to the end of."""
    run = RunSettings(
        steps=1_000_000,
        batch_size=setting.batch,
        micro_batch=setting.micro_batch,
        device=setting.device,
        precision=setting.precision,
        compile=setting.compile,
    )
    config = RunConfig(model=setting.size, routing=routing, data=DataConfig(tokenizer=TokenizerConfig("gpt2")), run=run)
    config = replace(config, log=replace(config.log, routing_every=0))  # no details of routing in any step
    validate(config)
    return config


def trainer_of(routing: Routing, setting: Setting) -> Trainer:
    """A run as the training session sets it up, before its first step."""
    config = run_config(routing, setting)
    device = configure(config)
    model = build_model(config, end_of_text=None).to(device)
    if config.run.compile:
        model.compile()
    sampler = SameBatch(setting.batch, config.model.context, config.vocab_size)
    return Trainer(config, model, sampler, device)


def dense_twin(picks: float, routing: Routing) -> Routing:
    """The dense network of as many hidden units as `picks` experts have together."""
    assert routing.expert_size is not None
    return Routing(selection=Selection.DENSE, expert_size=round(picks * routing.expert_size))


def kept_per_token(trainer: Trainer) -> float:
    """Experts a token, mean over layers and over the steps since the last call."""
    layers = trainer.routing.read()
    return sum(layer["kept_per_token"] for layer in layers) / len(layers)


def compare(routing: Routing, twin: Routing, rounds: int, setting: Setting) -> Row:
    """A step with `routing` over one with `twin`."""
    sides = [trainer_of(each, setting) for each in (routing, twin)]
    row = flanked(sides[0].train_step, sides[1].train_step, rounds, warmup=2, device=setting.device)
    return {
        **row,
        **dataclasses.asdict(setting),
        "kept_per_token": round(kept_per_token(sides[0]), 3),
        "twin": {"selection": str(twin.selection), "num_experts": twin.num_experts, "expert_size": twin.expert_size},
    }


def over_dense(routing: Routing, rounds: int, setting: Setting) -> Row:
    """A step with `routing` over one of its dense twin: of a threshold, by the picks of its first step."""
    routing = with_size(routing, setting)
    picks = float(routing.k + routing.shared_experts)
    if routing.selection is Selection.THRESHOLD:
        first = trainer_of(routing, setting)
        first.train_step()
        picks = kept_per_token(first)
    return compare(routing, dense_twin(picks, routing), rounds, setting)


def with_size(routing: Routing, setting: Setting) -> Routing:
    """The same with the size of an expert written out."""
    return replace(routing, expert_size=routing.expert_size or setting.size.hidden)


def add_setting(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Options for everything in `Setting`."""
    parser.add_argument("--model", default=Setting.model, help="a size of conf/model")
    parser.add_argument("--batch", type=int, default=Setting.batch, help="sequences a step")
    parser.add_argument("--micro-batch", type=int, help="sequences a forward pass")
    parser.add_argument("--device", default=Setting.device, choices=["cpu", "cuda"])
    parser.add_argument("--precision", default=Setting.precision, choices=PRECISIONS)
    parser.add_argument("--compile", action="store_true")
    return parser


def setting_of(arguments: argparse.Namespace) -> Setting:
    """The setting that the options of `add_setting` ask for."""
    return Setting(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Setting)})


def name_end(setting: Setting) -> str:
    """What a row's name ends with where it is not measured in the usual way."""
    return unusual(
        sequences=(setting.batch, Setting.batch),
        micro_batch=(setting.micro_batch, None),
        precision=(setting.precision, Setting.precision),
        compiled=(setting.compile, False),
    )


def main() -> None:
    parser = add_setting(options(__doc__, rounds=7, rows=list(routings(hidden=8))))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    setting = setting_of(arguments)
    results = open_results(arguments, setting.device)
    end = name_end(setting) + unusual(threads=(arguments.threads, 1))
    for name in arguments.rows:
        routing = routings(setting.size.hidden)[name]
        results.measure(f"step {setting.model} {name}{end}", partial(over_dense, routing, arguments.rounds, setting))


if __name__ == "__main__":
    main()
