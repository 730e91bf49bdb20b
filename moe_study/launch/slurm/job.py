"""What a job of SLURM starts: python -m moe_study.launch.slurm.job SUBMISSION INDEX.

Signals are heard before anything else is imported: one that comes meanwhile is noted, and heeded then.
"""

import signal
import sys

HEARD: list[str] = []  # names of the signals that have come while no training listened


def _note(number: int, _frame: object) -> None:
    HEARD.append(signal.Signals(number).name)


def main() -> int:
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, _note)
    from moe_study.guard import guarded
    from moe_study.launch.slurm.task import Task

    folder, index = sys.argv[1:]
    code = guarded(lambda: Task(folder, int(index), HEARD).do())
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # one that comes while Python ends must not make the job fail
    return code


if __name__ == "__main__":
    sys.exit(main())
