"""`moe-study results`: keep what finished sweeps say, and write the overview of all that was kept."""

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Write results/NAME/ for sweeps that were run: tables, pictures, answers, a manifest, and one row for each run, from
which results/README.md (every claim with its verdict) is computed. Without --sweep: every committed sweep of RUNS_DIR.
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `results` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "results", help="Keep the answers of finished sweeps in results/, with an overview.", description=DESCRIPTION
    )
    parser.add_argument("runs_dir", nargs="?", default="runs", help="the folder that holds the runs (runs)")
    parser.add_argument("--sweep", action="append", default=[], metavar="NAME", help="this sweep; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where they are kept (results)")
    parser.add_argument("--only-overview", action="store_true", help="write README.md anew from what was kept")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Write, and say what was written."""
    from moe_study.analysis.results.archive import archives
    from moe_study.analysis.results.keep import keep, sweeps_to_keep
    from moe_study.analysis.results.overview import QUESTIONS, answered, overview
    from moe_study.files import write_text_atomic
    from moe_study.runs.members import list_sweeps
    from moe_study.sweeps.conf import project_root
    from moe_study.sweeps.sweep_file import claims_of, sweep_names

    root = project_root()
    committed = sweep_names(root)
    if not options.only_overview:
        launched = list_sweeps(options.runs_dir)
        for name in sweeps_to_keep(launched, committed, options.sweep):
            written = keep(Path(options.runs_dir), name, options.out, claims_of(name, root))
            print(f"{written[0].parent}: {len(written)} files")
    planned = {name: claims_of(name, root) for name in committed if not name.startswith("recipe/")}
    kept = [answered(archive, claims_of(archive.name, root)) for archive in archives(options.out)]
    questions = next((path for path in (options.out / QUESTIONS, root / "results" / QUESTIONS) if path.exists()), None)
    write_text_atomic(options.out / "README.md", overview(kept, questions, planned))
    print(options.out / "README.md")
