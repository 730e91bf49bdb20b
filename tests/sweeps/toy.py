"""Jobs that train nothing, planted instead of the training to test what runs, when, and what is left behind."""


from moe_study.config import RunConfig
from moe_study.runs import RunFolder


def quick(config: RunConfig, folder: RunFolder) -> dict:
    folder.append_metrics({"kind": "train", "step": config.total_steps, "loss": 1.0})
    return {"key": folder.key, "validation_perplexity": 2.0 + config.run.seed}
