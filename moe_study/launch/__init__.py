"""From a plan to running processes: one run or a whole sweep, on this machine or through a scheduler."""
