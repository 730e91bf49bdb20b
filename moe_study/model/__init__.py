"""The GPT-2 trainer's model and its mixture-of-experts layers (PyTorch)."""
