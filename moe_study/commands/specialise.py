"""`moe-study specialise`: what the experts of a sweep's runs follow, over seeds and against nulls."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.commands.arguments import add_probe_places, add_runs
from moe_study.commands.places import check_out_folder
from moe_study.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from moe_study.analysis.specialisation.over_runs import RunFindings
    from moe_study.posthoc.measure import Wish

DESCRIPTION = """\
What the experts of finished runs follow: topic, language, part of speech, token id or position of a labelled probe that
no run trains on, each beside what it would be by chance, seed by seed and then over seeds; what is left of it where
hidden states are alike; load, distances of domains, agreement with a router by label. Runs are traced over the probe
once; traces and what was measured stay in their folders, so the same command answers at once the next time.

  moe-study specialise --sweep first_look                    on the default probe
  moe-study specialise --sweep first_look --probe brown      part of speech of every word
"""
LEFT_OUT = "left out: "
BRIEF_TOKENS, BRIEF_PERMUTATIONS = 30_000, 299


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
    add_probe_places(parser)
    parser.add_argument("--jobs", type=int, metavar="N", help="runs measured at a time (one for each core, at most 8)")
    parser.add_argument("--out", type=Path, default=Path("specialisation"), help="where tables go (specialisation)")
    parser.add_argument(
        "--brief",
        action="store_true",
        help=f"a first look in half a minute: {BRIEF_TOKENS:,} tokens, {BRIEF_PERMUTATIONS} permutations, language and"
        " topic in a line for each point; where that cannot be had, a sentence and exit code 0",
    )
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Trace, measure, write and print."""
    check_out_folder(options.out)
    (_print_in_brief if options.brief else _print_in_full)(options)


def _print_in_full(options: argparse.Namespace) -> None:
    from moe_study.analysis.specialisation.answers import answers
    from moe_study.analysis.specialisation.nulls import PERMUTATIONS
    from moe_study.analysis.specialisation.points import points_of
    from moe_study.analysis.specialisation.report import write_report
    from moe_study.analysis.specialisation.sentences import sentences
    from moe_study.data.probes import DEFAULT_TOKENS
    from moe_study.posthoc.measure import ALL_MEASURES

    wish = _wish(options, DEFAULT_TOKENS, PERMUTATIONS, ALL_MEASURES)
    runs, notes = _measured(options, wish)
    if not runs:
        raise StudyError(f"no run could be measured; the first: {notes[0].removeprefix(LEFT_OUT)}")
    points, others = points_of([run.information for run in runs]), list(answers(runs))
    print()
    for line in [*sentences(points, wish.permutations, short=True), *others, *notes]:
        print(line)
    lines = [*sentences(points, wish.permutations), *others, *notes]
    written = write_report(points, runs, lines, options.out)
    print(f"\n{options.out}: {written[0].name}, and {len(written) - 1} tables")


def _print_in_brief(options: argparse.Namespace) -> None:
    from moe_study.analysis.specialisation.closing import closing_lines
    from moe_study.analysis.specialisation.points import points_of
    from moe_study.posthoc.measure import BRIEF_MEASURES

    wish = _wish(options, BRIEF_TOKENS, BRIEF_PERMUTATIONS, BRIEF_MEASURES)
    runs, notes = _measured(options, wish)
    if not runs and notes:  # a study that asked for a first look goes on without one
        print(f"What do experts attend to? Not measured: {notes[0].removeprefix(LEFT_OUT)}")
        return
    points = points_of([run.information for run in runs])
    more = f"moe-study specialise{f' --sweep {options.sweep}' if options.sweep else ''}"
    for line in closing_lines(points, f"probe {wish.probe}, {wish.tokens:,} tokens", more):
        print(line)
    for note in (note for note in notes if note.startswith(LEFT_OUT)):
        print(note)


def _wish(options: argparse.Namespace, tokens: int, permutations: int, measures: Sequence[str]) -> "Wish":
    from moe_study.data.probes import DEFAULT_PROBE
    from moe_study.posthoc.measure import Wish

    wish = Wish(
        probe=options.probe or DEFAULT_PROBE,
        tokens=tokens if options.tokens is None else options.tokens,
        permutations=permutations if options.permutations is None else options.permutations,
        path=options.path,
        data_root=options.data_root,
        measures=tuple(measures),
    )
    wish.check()
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs} measures nothing; take at least 1")
    return wish


def _measured(options: argparse.Namespace, wish: "Wish") -> tuple[list["RunFindings"], list[str]]:
    """What was found about each run, and what a reader must know of that and of what could not be."""
    from moe_study.analysis.frame import done, load_frame
    from moe_study.posthoc.specialise import measure_runs

    frame = load_frame([Path(options.runs_dir)], options.sweep)
    finished = len(done(frame))
    say = _overwrite if options.brief else _print
    say(f"{len(frame)} runs, {finished} finished, read from {options.runs_dir}")
    if not finished:
        raise StudyError("no run is finished yet, so there is nothing to trace")
    brief = options.brief
    found = measure_runs(frame, wish, say, options.jobs, only_experts=brief, progress=not brief)
    if options.brief:
        _overwrite("")
    return found.runs, [*found.notes, *(f"{LEFT_OUT}{line}" for line in found.left_out)]


def _print(line: str) -> None:
    print(line, flush=True)


def _overwrite(line: str) -> None:
    """Progress that is gone when it has been seen; nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
