"""Training: from a configuration to a finished run's folder. Imports nothing, so entry points stay fast."""
