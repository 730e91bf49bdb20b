"""The output of a process that trains, in the log.txt of its run."""

import os
import sys
import time

from moe_study.files import make_folder
from moe_study.guard import forgiving_output
from moe_study.runs.folder import RunFolder


def redirect_output(folder: RunFolder) -> None:
    """From here on all output, that of libraries too, goes to the end of the run's log, under a line that says when."""
    make_folder(folder.path)
    log = os.open(folder.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = os.fdopen(number, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, stream)
    with forgiving_output():  # the log may lie on a full disk
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()}", flush=True)
