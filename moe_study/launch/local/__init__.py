"""A bounded pool of processes on this machine."""
