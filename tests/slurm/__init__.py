"""Tests against a real SLURM on this machine."""
