"""Arguments that several subcommands take, and what each is there for."""

import argparse
from pathlib import Path

BY_KEY = "folder, key, or the beginning of its key"


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The runs of a folder, or of one sweep: for commands that work on many."""
    parser.add_argument("runs_dir", nargs="?", default="runs", help="the folder that holds the runs (runs)")
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep, as last launched")


def add_run(parser: argparse.ArgumentParser, whose: str) -> None:
    """One run by name; `whose` says of which kind ("a finished run's")."""
    parser.add_argument("run", metavar="RUN", help=f"{whose} {BY_KEY}")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Any number of runs by name."""
    parser.add_argument("runs", nargs="*", metavar="KEY", help=f"a run's {BY_KEY}")


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Where the runs are that are named by their keys."""
    parser.add_argument("--runs-dir", default="runs", help="the folder that holds the runs (runs)")


def add_probe_places(parser: argparse.ArgumentParser) -> None:
    """Where the texts of a probe are."""
    parser.add_argument("--path", type=Path, metavar="FOLDER", help="the folder of --probe local_files")
    parser.add_argument("--data-root", type=Path, metavar="FOLDER", help="where probes are kept (each run's data.root)")


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """How points are compared and ranked: --reference, --margin and --rank-leaking."""
    add_reference(parser)
    help_text = "nats per token within which two points are the same (that of the sweep file, or 0.01)"
    parser.add_argument("--margin", type=float, metavar="NATS", help=help_text)
    parser.add_argument("--rank-leaking", action="store_true", help="rank points that read later tokens too")


def add_reference(parser: argparse.ArgumentParser) -> None:
    """The point that all others are compared with."""
    parser.add_argument("--reference", metavar="LABEL", help="point to compare with (the smallest dense one)")
