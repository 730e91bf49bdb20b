"""`moe-study knockout`: what breaks in trained runs when experts are taken away, over seeds and against nulls."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.commands.arguments import add_probe_places, add_runs
from moe_study.commands.places import check_out_folder
from moe_study.errors import ConfigError, StudyError

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Causal tests of finished runs: the loss by language, topic or other label of a probe that no run trains on, when an
expert is removed, its tokens go to their next best expert, two experts are swapped, each token loses its best expert,
all tokens go to one, or routes are random; each beside the same done to random experts of equal load. A decision that
several layers follow is changed for all of them. What was measured stays in the runs' folders.

With --lazy: how much each expert contributes to the output, and the loss on the validation text without those that
contribute less than a tenth of an even share (or another part), without the least of each layer, and without others.

  moe-study knockout --sweep first_look                     on 20,000 tokens of the default probe
  moe-study knockout runs/KEY --layers 1 --kinds remove     one run, one layer, experts removed alone
  moe-study knockout --sweep softmoe/causal --lazy          how many experts are lazy, and can they be dropped?
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `knockout` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "knockout",
        help="What breaks without an expert, by language and topic, over seeds and against chance.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_runs(parser)
    parser.add_argument("--probe", metavar="NAME", help="labelled texts (wiki_topics)")
    parser.add_argument("--tokens", type=int, metavar="N", help="how much of the probe (20000)")
    parser.add_argument("--layers", metavar="L,L,...", help="layers that decide, from 0 (all)")
    parser.add_argument(
        "--kinds", metavar="NAME,...", help="remove,reroute,swap,lose_best,one_expert,random_routes (all)"
    )
    help_text = "ask for lazy experts instead: those that contribute less than this part of an even share (0.1)"
    parser.add_argument("--lazy", type=float, nargs="?", const=math.nan, metavar="PART", help=help_text)
    parser.add_argument("--draws", type=int, metavar="N", help="of each null (3)")
    add_probe_places(parser)
    parser.add_argument("--out", type=Path, default=Path("specialisation"), help="where tables go (specialisation)")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Measure, write and print."""
    check_out_folder(options.out)
    (_print_knocked_out if options.lazy is None else _print_lazy)(options)


def _finished(options: argparse.Namespace) -> "pd.DataFrame":
    """The runs that were asked for; StudyError where none is finished."""
    from moe_study.analysis.frame import done, load_frame

    frame = load_frame([Path(options.runs_dir)], options.sweep)
    print(f"{len(frame)} runs, {len(done(frame))} finished, read from {options.runs_dir}", flush=True)
    if not len(done(frame)):
        raise StudyError("no run is finished yet, so nothing can be taken away from one")
    return frame


def _print_knocked_out(options: argparse.Namespace) -> None:
    from moe_study.analysis.specialisation.knockout_points import points_of
    from moe_study.analysis.specialisation.knockout_report import write_knockout_report
    from moe_study.analysis.specialisation.knockout_sentences import knockout_sentences
    from moe_study.posthoc.knockout.study import knock_out_runs

    wish = _wish(options)
    wish.check()
    found = knock_out_runs(_finished(options), wish, lambda line: print(line, flush=True))
    if not found.runs:
        raise StudyError(f"no run could be knocked out; the first: {found.left_out[0]}")
    points = points_of(found.runs)
    lines = [*knockout_sentences(points), *found.notes, *(f"left out: {line}" for line in found.left_out)]
    print()
    for line in lines:
        print(line)
    written = write_knockout_report(points, lines, options.out)
    print(f"\n{options.out}: {', '.join(path.name for path in written)}")


def _print_lazy(options: argparse.Namespace) -> None:
    from moe_study.analysis.specialisation.lazy import lazy_cells, lazy_sentences, notes_on
    from moe_study.analysis.tables_out import csv_text, markdown, plain_text
    from moe_study.files import write_text_atomic
    from moe_study.posthoc.knockout.lazy_runs import lazy_over_runs

    wish = _lazy_wish(options)
    wish.check()
    runs = _finished(options)
    found = lazy_over_runs(runs, wish, lambda line: print(line, flush=True))
    if not len(found.experts):
        raise StudyError(f"no run has experts to ask; {found.left_out[0] if found.left_out else 'all are dense'}")
    leaking = frozenset(found.experts[found.experts["leaks"].eq(True)]["label"])
    cells = lazy_cells(found.experts, found.drops, leaking)
    lines = [*lazy_sentences(found.experts, found.drops, leaking), *(f"left out: {line}" for line in found.left_out)]
    lines += [" ".join(note.split()) for note in notes_on(runs[runs["label"].isin(found.experts["label"])])]
    print(f"\n{plain_text(cells)}\n")
    for line in lines:
        print(line)
    texts = {
        "lazy_experts.csv": csv_text(found.experts),
        "lazy_drops.csv": csv_text(found.drops),
        "lazy.md": "\n".join([markdown(cells), *(f"- {line}" for line in lines)]) + "\n",
    }
    for name, text in texts.items():
        write_text_atomic(options.out / name, text)
    print(f"\n{options.out}: {', '.join(texts)}")


def _lazy_wish(options: argparse.Namespace) -> Any:
    from moe_study.posthoc.knockout.lazy_runs import LazyWish

    for name in ("probe", "layers", "kinds", "path", "data_root"):
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"--lazy asks all layers, on the runs' own validation text; leave out {flag}")
    given = {name: getattr(options, name) for name in ("tokens", "draws")}
    given["limit"] = None if math.isnan(options.lazy) else options.lazy
    return LazyWish(**{name: value for name, value in given.items() if value is not None})


def _wish(options: argparse.Namespace) -> Any:
    from moe_study.posthoc.knockout.study import KnockoutWish

    given = {name: getattr(options, name) for name in ("probe", "tokens", "draws", "path", "data_root")}
    if options.layers is not None:
        given["layers"] = parse_layers(options.layers)
    if options.kinds is not None:
        given["kinds"] = parse_kinds(options.kinds)
    return KnockoutWish(**{name: value for name, value in given.items() if value is not None})


def parse_layers(text: str) -> tuple[int, ...]:
    """`0,2` as numbers; ConfigError otherwise."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--layers {text} must be numbers from 0 with commas between them, such as 0,1")
    return tuple(int(part) for part in parts)


def parse_kinds(text: str) -> tuple[Any, ...]:
    """Names of kinds; ConfigError for one that there is not."""
    from moe_study.analysis.specialisation.knockout import Kind

    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in set(Kind)]:
        raise ConfigError(f"--kinds: there is no {unknown[0] or 'empty name'}; choose of {', '.join(Kind)}")
    return tuple(Kind(name) for name in names)
