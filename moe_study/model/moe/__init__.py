"""Mixture-of-experts layers: read, score, pick, limit, dispatch, and count."""
