"""The content of result.json."""

import dataclasses
from typing import Any

from moe_study.audit.audit import Audit
from moe_study.design import accounting
from moe_study.design.causality import of_task
from moe_study.design.config import RunConfig
from moe_study.training.device import peak_memory_bytes
from moe_study.training.evaluation import Evaluation
from moe_study.training.loop import Trainer


def make_result(
    config: RunConfig, causality: Audit, fingerprint: str, trainer: Trainer, evaluation: Evaluation
) -> dict[str, Any]:
    """Everything that a table needs to know of a finished run; losses in nats per token, FLOPs forward per token."""
    watch = trainer.watch
    return {
        "key": config.key,
        "validation_loss": evaluation.loss,
        "validation_perplexity": evaluation.perplexity,
        "validation_tokens": evaluation.tokens,
        "bits_per_byte": evaluation.bits_per_byte,
        "accuracy": evaluation.accuracy,
        "by_language": evaluation.by_language,
        "by_topic": evaluation.by_topic,
        "tokens": trainer.tokens,
        "steps": trainer.step,
        **_accounting(config, evaluation),
        "train_seconds": watch.seconds,
        "tokens_per_second": watch.tokens_per_second or trainer.tokens / watch.seconds,
        "peak_memory_bytes": max(trainer.peak_memory, peak_memory_bytes(trainer.device)),
        "causality": dataclasses.asdict(of_task(causality.declared, config.task)),
        "causality_measured": dataclasses.asdict(of_task(causality.measured.verdict, config.task)),
        "data_fingerprint": fingerprint,
        **evaluation.rows_per_token,
        "positive_share": evaluation.positive_share,
    }


def _accounting(config: RunConfig, evaluation: Evaluation) -> dict[str, float]:
    """Counts from the configuration, and those of the rows that ran over the validation set, layer by layer."""
    kept, executed = (
        {int(layer): rate for layer, rate in evaluation.rows_per_token.get(name, {}).items()}
        for name in ("kept_per_token", "executed_per_token")
    )
    return {
        "num_params": accounting.num_params(config),
        "num_active_params": accounting.num_active_params(config),
        "flops_per_token": accounting.flops_per_token(config),
        "executed_active_params": accounting.num_active_params(config, kept),
        "executed_flops_per_token": accounting.flops_per_token(config, executed),
    }
