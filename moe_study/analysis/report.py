"""From run folders to a printed table, sentences and pictures: `python -m moe_study.analysis RUNS --out plots`."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from moe_study.analysis import table
from moe_study.analysis.comparison import MARGIN, Comparison, compare
from moe_study.analysis.frame import done, load_frame
from moe_study.analysis.labels import add_labels
from moe_study.analysis.pairs import default_questions, default_reference
from moe_study.analysis.plots.all import draw_all
from moe_study.analysis.wording import pooled_note, sentence, to_frame
from moe_study.errors import StudyError
from moe_study.files import write_text_atomic
from moe_study.guard import guarded

SENTENCES = 12  # printed for each question; all of them stand in comparisons.csv
PAGE = re.compile(r"-\d+$")  # of a picture with several pages


def draw(
    runs: Sequence[Path],
    out: Path,
    *,
    sweep: str | None = None,
    reference: str | None = None,
    rank_leaking: bool = False,
    margin: float = MARGIN,
) -> list[Path]:
    """Read the runs in `runs` (folders of runs, or single ones), write tables and pictures to `out`, print both.

    Runs evaluated on different data have tables of their own, in folders of their own. Returns what was written.
    Errors: StudyError when nothing is done yet, or `reference` is no point; damaged runs are listed instead.
    """
    frame = load_frame(runs, sweep)
    print(f"{len(frame)} runs, {len(done(frame))} done, read from {', '.join(map(str, runs))}\n")
    written: list[Path] = []
    problems: list[str] = []
    for name, part in evaluation_sets(frame):
        folder = out / name if name else out
        if name:
            print(f"Evaluated on {name}\n")
        written += _draw_one(part, folder, reference, rank_leaking, margin, problems)
    _print_list("Not in the table:", table.missing_lines(frame))
    _print_list("Left out of pictures:", problems)
    if not written:
        raise StudyError("no run is done yet, so there is nothing to draw")
    _print_files(written)
    return written


def evaluation_sets(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, finished runs) for each evaluation set, labelled anew; the name is empty when there is only one."""
    runs = done(frame)
    parts = {str(key): add_labels(part) for key, part in runs.groupby("evaluation")}
    names = {key: str(part["data.name"].iloc[0]) for key, part in parts.items()}
    for key in sorted(parts, key=lambda key: (names[key], key)):
        shared = list(names.values()).count(names[key]) > 1
        name = f"{names[key]}-{key[:6]}" if shared else names[key]
        yield (name if len(parts) > 1 else ""), parts[key]


def _draw_one(
    runs: pd.DataFrame,
    out: Path,
    reference: str | None,
    rank_leaking: bool,
    margin: float,
    problems: list[str],
) -> list[Path]:
    reference = reference if reference is not None else default_reference(runs)
    points = table.perplexity_table(runs, reference, rank_leaking)
    questions = default_questions(runs, reference, rank_leaking)
    answers = {question: compare(runs, pairs, margin) for question, pairs in questions.items()}
    print(table.to_text(points))
    print()
    _print_sentences(answers, pooled_note(runs))
    texts = {
        "table.md": table.to_markdown(points) + "\n",
        "table.csv": table.to_csv(points),
        "comparisons.csv": to_frame(answers).to_csv(index=False),
    }
    for name, text in texts.items():
        write_text_atomic(out / name, text)
    return [*(out / name for name in texts), *draw_all(runs, out, reference, problems)]


def _print_sentences(answers: Mapping[str, Sequence[Comparison]], note: str) -> None:
    for question, compared in answers.items():
        family = compared[0].family
        more = len(compared) - SENTENCES
        lines = [sentence(one) for one in compared[:SENTENCES]]
        lines += [f"... and {more} more in comparisons.csv"] if more > 0 else []
        _print_list(f"{question}{f' ({family} comparisons, Holm-adjusted)' if family > 1 else ''}:", lines)
    if note:
        print(note, end="\n\n")


def _print_list(heading: str, lines: Sequence[str]) -> None:
    if lines:
        print("\n  ".join([heading, *lines]), end="\n\n")


def _print_files(written: Sequence[Path]) -> None:
    for folder in dict.fromkeys(path.parent for path in written):
        here = [path for path in written if path.parent == folder]
        pictures = dict.fromkeys(PAGE.sub("-*", path.stem) for path in here if path.suffix == ".png")
        others = [path.name for path in here if path.suffix not in (".png", ".svg")]
        print(f"{folder}: {', '.join(others)}; as .png and .svg: {', '.join(pictures)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m moe_study.analysis", description="Table and pictures of finished runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders that hold runs, or single run folders")
    parser.add_argument("--out", type=Path, default=Path("plots"), help="where to write (default: plots)")
    parser.add_argument("--sweep", help="only the runs of this sweep")
    parser.add_argument("--reference", help="label of the point to compare with (default: the smallest dense one)")
    parser.add_argument("--margin", type=float, default=MARGIN, help="nats within which two are the same")
    parser.add_argument("--rank-leaking", action="store_true", help="rank points that read later tokens too")
    options = vars(parser.parse_args(arguments))

    def run() -> None:
        draw(options.pop("runs"), options.pop("out"), **options)

    return guarded(run)
