"""results/: the answers to the sweeps that were run, kept so that tables and verdicts can be computed anew."""
