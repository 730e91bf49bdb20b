"""The values that a setting of text may have, where no enum says it: the one place for them."""

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("language", "images"),
    "routing.first_segment": ("prior", "own_mean"),
    "routing.label": ("language", "topic"),
    "routing.balance.scope": ("micro_batch", "batch"),
    "run.precision": ("fp32", "tf32", "bf16"),
    "run.device": ("cpu", "cuda", "auto"),
    "run.dispatch": ("auto", "fused", "grouped", "triton"),
    "log.wandb": ("off", "offline", "online"),
}
