"""`moe-study score`: finished runs on downstream tasks, through lm-evaluation-harness."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.commands.arguments import add_reference
from moe_study.errors import ConfigError, StudyError

if TYPE_CHECKING:
    import pandas as pd

LOCAL_TASKS = "cloze,topic"
DESCRIPTION = """\
Score finished runs on downstream tasks, with lm-evaluation-harness (an optional extra: pip install 'moe-study[score]').
Two tasks need no network: cloze (which of four words ends a passage of held-out text) and topic (which of four
continuations belongs to the beginning of an article). Tasks of the harness go by its names, and fetch their data from
the Hugging Face hub. Scores stay in the runs' folders, so the same command answers at once the next time, and
moe-study plots writes them, too.

  moe-study score runs/KEY                              cloze and topic, with chance and standard errors
  moe-study score --sweep first_look                    every finished run of a sweep, point against point
  moe-study score KEY KEY --tasks hellaswag,cloze --items 500
  moe-study score --sweep first_look --growing-prefixes also routings that read later tokens, token by token
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `score` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "score",
        help="Scores of finished runs on downstream tasks, through lm-evaluation-harness.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="runs' folders, keys, or the beginnings of their keys")
    parser.add_argument("--sweep", metavar="NAME", help="every finished run of this sweep, as last launched")
    parser.add_argument("--tasks", default=LOCAL_TASKS, metavar="NAME,...", help=f"what to ask ({LOCAL_TASKS})")
    parser.add_argument("--items", type=int, metavar="N", help="questions of each task (200; of the harness's own all)")
    parser.add_argument(
        "--growing-prefixes",
        action="store_true",
        help="score routings that read later tokens, each token by a pass over its prefix alone, and mark them",
    )
    parser.add_argument("--label", metavar="NAME", help="what runs that are routed by label are told of every text")
    add_reference(parser)
    parser.add_argument(
        "--data-root", type=Path, metavar="FOLDER", help="where questions are kept (each run's data.root)"
    )
    parser.add_argument("--runs-dir", default="runs", help="where keys and sweeps are looked for (runs)")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Score, keep and print."""
    from moe_study.analysis.format import LEAK_MARK
    from moe_study.analysis.pairs import default_reference
    from moe_study.analysis.scores import score_cells, score_table
    from moe_study.analysis.study import known_reference
    from moe_study.analysis.table_text import NOTES
    from moe_study.analysis.tables_out import plain_text
    from moe_study.posthoc.lm_eval.score import ScoreWish, score_runs

    wish = ScoreWish(
        tasks=tuple(dict.fromkeys(name.strip() for name in options.tasks.split(","))),
        items=options.items,
        growing_prefixes=options.growing_prefixes,
        label=options.label,
        data_root=options.data_root,
    )
    wish.check()
    frame = _frame(options)
    known_reference(frame, options.reference)  # before hours are spent on scores
    found = score_runs(frame, wish, lambda line: print(line, flush=True))
    if not found.keys:
        raise StudyError(f"no run could be scored; the first: {found.left_out[0]}")
    scored = frame[frame["key"].isin(found.keys)]
    reference = options.reference or default_reference(scored)
    table = score_table(scored, reference, found.asked)
    marks = {str(label): LEAK_MARK for label in table[table["leaks"]]["label"]}
    notes = [f"{LEAK_MARK} {NOTES[LEAK_MARK].split(',')[0]}"] * bool(marks)
    notes += [f"left out: {line}" for line in found.left_out]
    print(f"\n{plain_text(score_cells(table, reference, marks, notes))}")


def _frame(options: argparse.Namespace) -> "pd.DataFrame":
    """The runs that are asked about; StudyError where none of them is finished."""
    from moe_study.analysis.frame import done, load_frame
    from moe_study.runs.listing import find_run

    if bool(options.runs) == bool(options.sweep):
        raise ConfigError("say which runs to score: their folders or keys, or --sweep NAME for those of a sweep")
    if options.sweep:
        frame = load_frame([Path(options.runs_dir)], options.sweep)
    else:
        frame = load_frame([find_run(options.runs_dir, name).path for name in options.runs])
    if not len(done(frame)):
        raise StudyError("no run is finished yet, so there is nothing to score")
    return frame
