"""Measured causality: which tokens reach which positions of a configuration's logits."""
