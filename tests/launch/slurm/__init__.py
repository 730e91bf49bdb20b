"""Mirrors moe_study/launch/slurm, without SLURM."""
