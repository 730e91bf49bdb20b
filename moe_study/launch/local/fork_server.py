"""Imported by the pool's fork server alone, before any run: what every run needs, loaded once for all of them.

What a job needs besides, its `preload` names.
Nothing here may start a thread or run a parallel region, since a fork takes neither along.
"""

import importlib
import signal

from moe_study.runs.provenance import code_version

# Signals to a whole job (scancel, SLURM's warning before the time limit) are for its runs, which save a checkpoint
# and end; the server ends with its pool. Each run sets them anew.
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)

importlib.import_module("moe_study.launch.local.worker")
code_version()  # of what is imported here: files that change while the pool is at work change none of its runs
