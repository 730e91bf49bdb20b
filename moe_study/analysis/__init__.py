"""Reads finished runs, and nothing else of the project's: frames, statistics, tables and pictures."""
