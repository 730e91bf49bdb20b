"""What a leak is worth: a trained leaking model, evaluated also under the causal context of the same family.

The perplexity of a leaking model is not an autoregressive one. That of its causal relatives is; it is an upper
bound on what the same weights could do without the leak, because they were never trained that way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moe_study.data import TrainSampler, open_corpus, validation_batches
from moe_study.data.sampler import labels_of
from moe_study.data.shards import PreparedCorpus
from moe_study.design.causal_relatives import causal_relatives, difference
from moe_study.design.causality import size_of
from moe_study.design.config import RunConfig
from moe_study.design.routing import Routing
from moe_study.design.validation import validate
from moe_study.errors import ConfigError, StudyError
from moe_study.model.moe.routing.router import ScoringRouter
from moe_study.model.moe.routing.selection import Rule
from moe_study.model.transformer import Transformer
from moe_study.runs.folder import RunFolder
from moe_study.training.device import configure
from moe_study.training.evaluation import Evaluation, evaluate
from moe_study.training.models import build_model, load_model

CALIBRATION_BATCHES = 20
CALIBRATED = (".prior_E", ".cutoff_E", ".updates")  # states that a relative may have and the trained model not


@dataclass(frozen=True)
class Cost:
    """A trained model under one routing."""

    routing: Routing
    change: str  # against the trained routing; empty for that itself
    evaluation: Evaluation


def cost_of_leak(folder: RunFolder) -> list[Cost]:
    """The run as trained, and under each of its causal relatives. StudyError where there is nothing to compare."""
    config = folder.read_config()
    if config.task != "language":
        raise StudyError(f"{folder.path} was trained with task={config.task}: nothing there comes later than the rest")
    relatives = causal_relatives(config.routing, *size_of(config))
    if not relatives:
        raise StudyError(f"{folder.path} reads no later token: its perplexity needs no causal counterpart")
    device, corpus = configure(config), open_corpus(config.data)
    model = load_model(folder)
    costs = [Cost(config.routing, "", _evaluate(model, config, corpus, device))]
    for routing in relatives:
        changed = replace(config, routing=routing)
        try:
            validate(changed)
        except ConfigError:
            continue  # the family has this relative, the point's other axes do not go with it
        relative = under(changed, model, corpus.end_of_text, training_batches(changed, corpus), device)
        costs.append(Cost(routing, difference(config.routing, routing), _evaluate(relative, changed, corpus, device)))
    return costs


def training_batches(config: RunConfig, corpus: PreparedCorpus) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens (B, T) and labels (B,) of a few training batches."""
    sampler = TrainSampler(corpus.train, config.model.context, config.run.eval_batch, config.run.seed)
    for step in range(CALIBRATION_BATCHES):
        batch = sampler.batch(step)
        label_B = labels_of(batch, config.routing.label)
        yield torch.from_numpy(batch.inputs_BT), torch.from_numpy(label_B)


def under(
    config: RunConfig,
    trained: Transformer,
    end_of_text: int | None,
    batches: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
) -> Transformer:
    """The trained weights in a model with `config`'s routing; states they lack are calibrated on `batches`."""
    model = build_model(config, end_of_text)
    missing, _ = model.load_state_dict(trained.state_dict(), strict=False)
    unknown = [name for name in missing if not name.endswith(CALIBRATED)]
    assert not unknown, f"the trained model has no {unknown[0]}"
    model.to(device).eval()
    if missing:
        calibrate(model, batches, device)
    return model


@torch.no_grad()
def calibrate(model: Transformer, batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> None:
    """Fill cutoffs by the rule's own moving average, and priors with the router's mean logits over all units."""
    rules = [module for module in model.modules() if isinstance(module, Rule)]
    routers = [module for module in model.modules() if isinstance(module, ScoringRouter) and module.prior_E is not None]
    seen: dict[ScoringRouter, list[Tensor]] = {router: [] for router in routers}
    hooks = [
        router.register_forward_hook(lambda router, _, logits_BUE: seen[router].append(logits_BUE[:, 1:].mean((0, 1))))
        for router in routers
    ]
    for rule in rules:  # and nothing else: dropout and router noise stay off
        rule.train()
    for router in routers:
        assert router.prior_E is not None
        router.prior_E.zero_()
    for tokens_BT, label_B in batches:
        model(tokens_BT.to(device), label_B=label_B.to(device))
        for rule in rules:
            rule.end_step()
        for router in routers:
            assert router.prior_E is not None
            router.prior_E.copy_(torch.stack(seen[router]).mean(0))
    for hook in hooks:
        hook.remove()
    model.eval()


def _evaluate(model: Transformer, config: RunConfig, corpus: PreparedCorpus, device: torch.device) -> Evaluation:
    run = config.run
    batches = validation_batches(corpus.validation, config.model.context, run.eval_batch, run.eval_tokens)
    model.to(device)
    return evaluate(model, batches, corpus, device, precision=run.precision, label=config.routing.label)
