"""`moe-study results`: keep what finished sweeps say, and write the overview of all that was kept."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.commands.places import check_out_folder
from moe_study.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from moe_study.runs.folder import RunFolder

DESCRIPTION = """\
Write results/NAME/ for sweeps that were run: tables, pictures, answers, a manifest, and one row for each run, from
which results/README.md (every claim with its verdict) is computed. Without --sweep: every committed sweep of RUNS_DIR.

  moe-study results runs --sweep open/gate@cpu
  moe-study results runs --sweep open/gate@cpu --probe brown          also where losses lie, token by token
  python train.py -m +sweep=open/gate scale=cpu run.seed=5,6,7,8,9 log.runs_dir=runs_again
  moe-study results runs_again --sweep open/gate@cpu --replicate      do other seeds say the same?
"""
HOW_TO_HAVE_GRADIENTS = (
    "training records them (log.gradients_every=50) in runs of today's version; --gradients measures finished models"
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `results` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "results",
        help="Keep the answers of finished sweeps in results/, with an overview.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs_dir", nargs="?", default="runs", help="the folder that holds the runs (runs)")
    help_text = "this sweep, or the path to its file; may be repeated"
    parser.add_argument("--sweep", action="append", default=[], metavar="NAME", help=help_text)
    parser.add_argument("--out", type=Path, default=Path("results"), help="where they are kept (results)")
    help_text = "have every finished run read this probe (may be repeated): loss and experts by position and label"
    parser.add_argument("--probe", action="append", default=[], metavar="NAME", help=help_text)
    parser.add_argument("--tokens", type=int, default=20_000, metavar="N", help="of each probe (20,000)")
    help_text = "evaluate dense and split runs with parts off (moe-study sparsify), and compare them at equal FLOPs"
    parser.add_argument("--sparsify", action="store_true", help=help_text)
    help_text = "keep the runs of RUNS_DIR, of other seeds, beside those that were kept, and say which verdicts agree"
    parser.add_argument("--replicate", action="store_true", help=help_text)
    help_text = "measure gradient norms by part of the finished models, and what batches agree on"
    parser.add_argument("--gradients", action="store_true", help=help_text)
    help_text = "measure which experts of finished models contribute least, and their loss without (knockout --lazy)"
    parser.add_argument("--lazy", action="store_true", help=help_text)
    help_text = "write README.md, and the texts of measures, anew from what was kept"
    parser.add_argument("--only-overview", action="store_true", help=help_text)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Write, and say what was written."""
    from moe_study.analysis.results.keep import keep, sweeps_to_keep
    from moe_study.analysis.results.overview import overview_texts
    from moe_study.analysis.results.replication import keep_replication
    from moe_study.data.probes.prepared import check_probe
    from moe_study.files import write_text_atomic
    from moe_study.runs.members import list_sweeps
    from moe_study.sweeps.conf import project_root
    from moe_study.sweeps.scales import joined, split
    from moe_study.sweeps.sweep_file import claims_of, launched_as, sweep_names

    if options.only_overview and (asked_for := _what_runs_are_asked(options)):
        raise ConfigError(
            f"--only-overview reads no runs and writes of all that was kept: leave out {', '.join(asked_for)}, or it"
        )
    check_out_folder(options.out)
    root = project_root()
    committed = sweep_names(root)
    for probe in options.probe:
        check_probe(probe, options.tokens)
    if not options.only_overview:
        launched = list_sweeps(options.runs_dir)
        asked = {launched_as(written, root): written for written in options.sweep}
        files = {split(name)[0]: split(written)[0] for name, written in asked.items()}
        for name in sweeps_to_keep(launched, committed, list(asked)):
            sweep, scale = split(name)
            claims = claims_of(joined(files.get(sweep, sweep), scale), root)
            _measure(options, name)
            kept_by = keep_replication if options.replicate else keep
            written = kept_by(Path(options.runs_dir), name, options.out, claims)
            print(f"{written[0].parent}: {len(written)} files")
            if not options.replicate and not any(path.name.startswith("gradients.") for path in written):
                print(f"{name} has no gradient norms by part: {HOW_TO_HAVE_GRADIENTS}")
    for path, text in overview_texts(options.out, root).items():
        write_text_atomic(path, text)
        print(path)


def _what_runs_are_asked(options: argparse.Namespace) -> list[str]:
    """The options given that say which runs to keep, or what to measure of them."""
    names = ("sweep", "probe", "sparsify", "replicate", "gradients", "lazy")
    return [f"--{name}" for name in names if getattr(options, name)]


def _measure(options: argparse.Namespace, name: str) -> None:
    """Have the finished runs of a sweep measured as the flags ask; what is found stays in their folders."""
    from moe_study.analysis.frame import load_frame

    asked = [measure for flag, measure in MEASURES.items() if getattr(options, flag)]
    if asked:
        frame = load_frame([Path(options.runs_dir)], name)
        for measure in asked:
            measure(options, frame)


def _read_probes(options: argparse.Namespace, frame: "pd.DataFrame") -> None:
    from moe_study.posthoc.trace import probe_of, trace_run

    def read(folder: "RunFolder") -> None:
        for probe in dict.fromkeys(options.probe):
            trace_run(folder, probe_of(folder, probe, tokens=options.tokens, progress=False), progress=False)

    _each_finished_run(frame, read)


def _with_parts_off(_options: argparse.Namespace, frame: "pd.DataFrame") -> None:
    """Of the runs that can be sparsified; one whose network was split into other numbers of parts is split anew."""
    from moe_study.analysis.frame import done
    from moe_study.commands.sparsify import THRESHOLDS, parse_thresholds, write
    from moe_study.design.routing import Selection
    from moe_study.files import read_json
    from moe_study.posthoc.sparsify.curve import EXPERTS, sparsify
    from moe_study.runs.folder import RunFolder

    runs = done(frame)
    for path in runs[runs["routing.selection"].isin([Selection.DENSE, Selection.ALL])]["folder"]:
        folder = RunFolder(path)
        known = read_json(folder.sparsify_file)
        as_asked = isinstance(known, dict) and (
            known["selection"] == Selection.ALL or set(known["num_experts"]) == {EXPERTS}
        )
        if not as_asked:
            write(folder.sparsify_file, sparsify(folder, parse_thresholds(THRESHOLDS), None))


def _gradients(_options: argparse.Namespace, frame: "pd.DataFrame") -> None:
    from moe_study.posthoc.gradients import gradients_at_end

    _each_finished_run(frame, gradients_at_end)


def _each_finished_run(frame: "pd.DataFrame", measure: Callable[["RunFolder"], object]) -> None:
    """Measure the finished runs of a sweep; one that cannot be is left out with a sentence."""
    from moe_study.analysis.frame import done
    from moe_study.errors import StudyError
    from moe_study.runs.folder import RunFolder

    for path in done(frame)["folder"]:
        folder = RunFolder(path)
        try:
            measure(folder)
        except StudyError as error:
            print(f"{folder.key} is left out: {error}")


def _lazy_experts(_options: argparse.Namespace, frame: "pd.DataFrame") -> None:
    from moe_study.posthoc.knockout.lazy_runs import LazyWish, lazy_over_runs

    for line in lazy_over_runs(frame, LazyWish()).left_out:
        print(f"left out: {line}")


MEASURES = {"probe": _read_probes, "sparsify": _with_parts_off, "gradients": _gradients, "lazy": _lazy_experts}
