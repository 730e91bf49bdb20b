"""`moe-study specialise`: what the experts of a sweep's runs follow, over seeds and against nulls."""

import argparse
from pathlib import Path
from typing import Any

from moe_study.commands.status import add_runs
from moe_study.errors import StudyError

DESCRIPTION = """\
What the experts of finished runs follow: topic, language, part of speech, token id or position of a labelled probe that
no run trains on, each beside what it would be by chance, seed by seed and then over seeds. Runs are traced over the
probe once; the traces stay in their folders.

  moe-study specialise --sweep first_look                    on the default probe
  moe-study specialise --sweep first_look --probe brown      part of speech of every word
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `specialise` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "specialise",
        help="What the experts of finished runs follow, over seeds and against chance.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_runs(parser)
    parser.add_argument("--probe", metavar="NAME", help="labelled texts (wiki_topics)")
    parser.add_argument("--tokens", type=int, metavar="N", help="how much of the probe (200000)")
    parser.add_argument("--permutations", type=int, metavar="N", help="draws of each null (1000)")
    parser.add_argument("--path", type=Path, metavar="FOLDER", help="the folder of --probe local_files")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="where probes are kept (each run's data.root)")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs measured at a time (one for each core, at most 8)")
    parser.add_argument("--out", type=Path, default=Path("specialisation"), help="where tables go (specialisation)")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Trace, measure, write and print."""
    from moe_study.analysis.frame import done, load_frame
    from moe_study.analysis.specialisation.nulls import PERMUTATIONS
    from moe_study.analysis.specialisation.points import measured_run, points_of
    from moe_study.analysis.specialisation.report import write_report
    from moe_study.analysis.specialisation.sentences import sentences
    from moe_study.data.probes import DEFAULT_PROBE, DEFAULT_TOKENS
    from moe_study.posthoc.measure import Wish
    from moe_study.posthoc.specialise import measure_runs

    wish = Wish(
        probe=options.probe or DEFAULT_PROBE,
        tokens=DEFAULT_TOKENS if options.tokens is None else options.tokens,
        permutations=PERMUTATIONS if options.permutations is None else options.permutations,
        path=options.path,
        data_root=options.data_root,
    )
    wish.check()
    frame = load_frame([Path(options.runs_dir)], options.sweep)
    finished = len(done(frame))
    print(f"{len(frame)} runs, {finished} finished, read from {options.runs_dir}", flush=True)
    if not finished:
        raise StudyError("no run is finished yet, so there is nothing to trace")
    found = measure_runs(frame, wish, lambda line: print(line, flush=True), options.jobs)
    if not found.runs:
        raise StudyError(f"no run could be measured; the first: {found.left_out[0]}")
    points = points_of([measured_run(r.point, r.seed, r.leaks, r.tables["information"]) for r in found.runs])
    lines = [*sentences(points, wish.permutations), *found.notes, *(f"left out: {line}" for line in found.left_out)]
    print()
    for line in lines:
        print(line)
    written = write_report(points, lines, options.out)
    print(f"\n{options.out}: {', '.join(path.name for path in written)}")
