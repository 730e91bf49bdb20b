"""Trained runs on downstream tasks, through EleutherAI's lm-evaluation-harness (the optional extra `score`)."""
