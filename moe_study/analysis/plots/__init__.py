"""Pictures of runs: pure renderings of the frames that they are given."""
