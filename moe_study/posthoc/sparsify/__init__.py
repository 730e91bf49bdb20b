"""Perplexity against FLOPs of a trained run whose experts are switched off by a threshold."""
