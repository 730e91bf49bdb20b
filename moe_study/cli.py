"""moe-study: prepare data, look at a plan, at the state of runs, and at results.

Parses, and hands over to one file for each subcommand in commands/. Torch is never imported here, and everything
else only by the command that needs it.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from moe_study.commands import (
    audit,
    cancel,
    export,
    inspect,
    knockout,
    logs,
    plan,
    plots,
    prepare,
    remove,
    report,
    results,
    retry,
    score,
    sparsify,
    specialise,
    status,
    submit,
    train,
)
from moe_study.guard import guarded

# In the order of --help.
SUBCOMMANDS = (
    *(prepare, plan, train, submit, status, logs, retry, cancel, remove),
    *(audit, inspect, specialise, knockout, sparsify, score, plots, report, results, export),
)
DESCRIPTION = """\
Studies of mixture-of-experts language models.

  moe-study prepare data=parliament_news      download, tokenize and index a corpus
  moe-study plan +sweep=first_look            what a sweep would train, and what it would cost
  moe-study train -m +sweep=first_look        train its runs, as python train.py does in a clone
  moe-study submit +sweep=first_look          send them to SLURM and return
  moe-study status --sweep first_look         what is done, running, failed and why
  moe-study logs KEY -f                       what a run says
  moe-study retry --failed                    send failed runs to SLURM again
  moe-study cancel --sweep first_look         cancel the jobs of a sweep
  moe-study remove --failed                   free disk of runs, after showing what goes
  moe-study audit +sweep=first_look           which points look at later tokens, declared and measured
  moe-study inspect runs/KEY --text "..."     which expert takes which token, topic or language
  moe-study specialise --sweep first_look     what experts follow, over seeds and against chance
  moe-study knockout --sweep first_look       what breaks without an expert, and for which language
  moe-study sparsify runs/KEY                 a dense run with some of its experts off: perplexity against FLOPs
  moe-study score --sweep first_look          downstream tasks, through lm-evaluation-harness
  moe-study plots --sweep first_look          table and pictures of the finished runs
  moe-study report --sweep first_look         the whole study as one page that opens from disk
  moe-study results --sweep first_look        its answers, kept in results/ beside those of other sweeps
  moe-study export runs/KEY                   a finished run as a folder that Hugging Face transformers opens
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command

    def run() -> int | None:
        try:
            return command(options)
        except BrokenPipeError:  # the reader has seen enough: moe-study status | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return guarded(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-study", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        subcommand.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
