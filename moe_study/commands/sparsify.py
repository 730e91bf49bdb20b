"""`moe-study sparsify`: what a trained run loses in perplexity when fewer of its experts are executed."""

import argparse
import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.analysis.format import aligned
from moe_study.commands.arguments import add_run, add_runs_dir
from moe_study.commands.places import check_out_file
from moe_study.errors import StudyError
from moe_study.files import write_json_atomic, write_text_atomic

if TYPE_CHECKING:
    from moe_study.posthoc.sparsify.curve import Curve

THRESHOLDS = "0.1,0.25,0.5,0.75,0.9,1"
DESCRIPTION = """\
Evaluate a trained run over a list of thresholds t: each token takes its most probable experts until their
probabilities sum to t. A run trained with every expert on (routing=dense_split) keeps its weights and gate as trained.
A dense run is split into experts first: clusters of hidden units with alike weights, a router fitted on a few batches
of training text; with t=1 it gives the dense outputs. Writes RUN/sparsify.json.

  moe-study sparsify runs/KEY
  moe-study sparsify runs/KEY --experts 16 --thresholds 0.3,0.6,1 --control random --out curve.csv
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `sparsify` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sparsify",
        help="Perplexity against FLOPs of a trained dense (or dense_split) run with some experts off.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run(parser, "a trained run's")
    parser.add_argument("--experts", type=int, metavar="N", help="experts that a dense run is split into (8)")
    parser.add_argument("--thresholds", default=THRESHOLDS, metavar="T,T,...", help=f"in [0, 1] ({THRESHOLDS})")
    parser.add_argument(
        "--control", choices=("random",), help="also split at random, to see what the clusters are worth"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .json or .csv file instead of RUN/sparsify.json")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Print the table and write it."""
    thresholds = parse_thresholds(options.thresholds)
    if options.out is not None and options.out.suffix not in (".json", ".csv"):
        raise StudyError(f"--out {options.out} must end in .json or .csv")
    if options.out is not None:
        check_out_file(options.out, "curve.csv")
    from moe_study.posthoc.sparsify.curve import sparsify
    from moe_study.runs.listing import find_run

    folder = find_run(options.runs_dir, options.run)
    curve = sparsify(folder, thresholds, options.experts, control=options.control is not None)
    out = options.out or folder.sparsify_file
    write(out, curve)
    for line in lines(curve):
        print(line)
    print(f"\nwritten to {out}")


def parse_thresholds(text: str) -> list[float]:
    """`0.1,0.5` as numbers, ascending, each once; StudyError otherwise."""
    try:
        return sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise StudyError(f"--thresholds {text} must be numbers with commas between them, such as 0.25,0.5,1") from None


def write(path: Path, curve: "Curve") -> None:
    """The whole curve as JSON, or its points as CSV, by the file's name."""
    if path.suffix == ".json":
        return write_json_atomic(path, asdict(curve))
    rows = [{"key": curve.key, **asdict(point)} for point in curve.points]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text_atomic(path, text.getvalue())


def lines(curve: "Curve") -> Iterator[str]:
    """The run as trained, then a line a threshold."""
    numbers = " ".join(str(n) for n in sorted(set(curve.num_experts)))
    whole = "dense" if curve.selection == "dense" else "all on"
    yield f"{curve.key}: {curve.validation_tokens:,} validation tokens, experts in a layer: {numbers}"
    rows = [("split", "threshold", "experts/token", "FLOPs/token", f"of {whole}", "loss", "perplexity")]
    trained = (curve.trained_flops_per_token, 1.0, curve.trained_loss, curve.trained_perplexity)
    rows.append(("as trained", "-", "-", *_cells(*trained)))
    for point in curve.points:
        cells = _cells(point.flops_per_token, point.flops_share, point.loss, point.perplexity)
        rows.append((point.split, f"{point.threshold:g}", f"{point.experts_per_token:.2f}", *cells))
    yield from aligned(rows, right=range(1, len(rows[0])))


def _cells(flops: float, share: float, loss: float | None, perplexity: float | None) -> tuple[str, str, str, str]:
    loss_cell = "not finite" if loss is None else f"{loss:.4f}"
    return f"{flops:,.0f}", f"{share:.1%}", loss_cell, "not finite" if perplexity is None else f"{perplexity:.2f}"
