"""A Study in print and in files: the answers first, then the table, the pictures and what is absent."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from moe_study.analysis.absent import without as missing
from moe_study.analysis.comparison import Comparison, Tested
from moe_study.analysis.effects.contrasts import Effect
from moe_study.analysis.effects.equal_cost import EqualCost
from moe_study.analysis.effects.rows import with_absent
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.effects.wording import effect_sentence, equal_cost_sentence, trend_sentence
from moe_study.analysis.frame import done
from moe_study.analysis.planned import Request
from moe_study.analysis.plots.all import draw_all
from moe_study.analysis.scores import score_cells
from moe_study.analysis.sections import section_tables, sections
from moe_study.analysis.study import Part, Study, read_study
from moe_study.analysis.table_text import NOTES, marks_by_label, table_cells, to_text
from moe_study.analysis.tables_out import Cells, cells_of, write_table
from moe_study.analysis.wording import HOW_TO_READ, best_first, sentence, to_frame
from moe_study.errors import StudyError
from moe_study.files import write_text_atomic

SHOWN = 20  # comparisons printed of those that are not decided; all of them stand in comparisons.csv
MOST_ABSENT = 40  # runs without a result that are printed; the files name all
COMPARED = (  # what people read of comparisons; the other columns stand in comparisons.csv
    *("question", "point", "against", "verdict", "mean", "low_tested", "high_tested", "level_tested"),
    *("n", "p_holm", "p_same_holm", "margin", "seeds_needed"),
)
PAGE = re.compile(r"-\d+$")  # of a picture with several pages


def draw(
    runs: Sequence[Path],
    out: Path,
    *,
    sweep: str | None = None,
    reference: str | None = None,
    rank_leaking: bool = False,
    margin: float | None = None,
) -> list[Path]:
    """Read the runs in `runs` (folders of runs, or single ones), write tables and pictures to `out`, print both.

    Runs evaluated on different data have tables of their own, in folders of their own. Returns what was written.
    Errors: StudyError when nothing is done yet, or `reference` is no point; damaged runs are listed instead.
    """
    study = read_study(runs, sweep, reference, rank_leaking, margin)
    print(f"{len(study.frame)} runs, {len(done(study.frame))} done, read from {', '.join(map(str, runs))}\n")
    written: list[Path] = []
    for line in answers(study):
        print(line)
    for part in study.parts:
        folder = out / part.name if part.name else out
        print(f"{f'Evaluated on {part.name}' if part.name else 'Table'}:\n")
        print(to_text(part.table, part.mixed), end="\n\n")
        written += [*_write(study, part, folder), *draw_all(part, folder)]
    _print_absent(study)
    _print_list("Left out of pictures:", study.problems)
    if not study.parts:
        raise StudyError("no run is done yet, so there is nothing to draw")
    _print_files(written)
    return written


def answers(study: Study) -> Iterator[str]:
    """What the runs decide, a line each, best first; then what they do not, and how many seeds it would take; then
    what is described: effects, equal cost, fronts, the price of the leak, power."""
    of_part = {id(one): part for part in study.parts for one in part.tested}
    ordered = best_first(study.tested)
    if ordered:
        decided = [one for one in ordered if one.decided]
        open_ones = [one for one in ordered if not one.decided]
        yield heading(study, len(decided), len(ordered))
        yield from (f"  {_line(of_part[id(one)], one)}" for one in decided)
        if open_ones:
            yield "Not decided:"
            yield from (f"  {_line(of_part[id(one)], one)}" for one in open_ones[:SHOWN])
            if len(open_ones) > SHOWN:
                yield f"  and {len(open_ones) - SHOWN} more, in comparisons.csv"
        yield f"({HOW_TO_READ})"
        if others := sum(len(part.others) for part in study.parts):
            yield f"{others} comparisons that nobody planned are in comparisons.csv, described and not tested."
    described = list(sections(study))
    yield from described
    if ordered or described:
        yield ""


def heading(study: Study, decided: int, asked: int) -> str:
    """How many hypotheses are decided, and by which family of tests."""
    kind = "comparisons (none was planned: see compare: in sweep files)"
    if study.planned:
        pairs = len(study.comparisons)
        kind = "planned comparisons" if pairs == asked else f"planned hypotheses ({pairs} of them comparisons)"
    family = f"one family of {study.family}, Holm-adjusted"
    if study.family < 2:
        family = "one test, with none to adjust for" if study.family else "none has the two seeds that a test needs"
    return f"Answers: {decided} of {asked} {kind} decided; {family}:"


def _line(part: Part, one: Tested) -> str:
    where, request = f"[{part.name}] " if part.name else "", request_of(one)
    why = f" | {request.question}" if request.question and request.written else ""
    return f"{where}{words_of(part, one)}{without(part, one)}{why}"


def words_of(part: Part, one: Tested) -> str:
    """The sentence of anything that was tested."""
    if isinstance(one, Comparison):
        return sentence(one, part.leaking)
    if isinstance(one, Trend):
        return trend_sentence(one)
    return equal_cost_sentence(one, part.leaking) if isinstance(one, EqualCost) else effect_sentence(_effect(one))


def request_of(one: Tested) -> Request:
    """What had been asked of anything that was tested."""
    return one.asked if isinstance(one, Comparison | EqualCost | Trend) else _effect(one).contrast


def _effect(one: Tested) -> Effect:
    assert isinstance(one, Effect)  # nothing else is tested
    return one


def without(part: Part, one: Tested) -> str:
    """The runs that what was tested lacks, in words."""
    return missing(request_of(one).labels, part.absent)


def _write(study: Study, part: Part, out: Path) -> list[Path]:
    """The answers and tables of one part; every run without a result is named in each."""
    absent = [f"without a result: {run.sentence}" for run in study.absent]
    write_text_atomic(out / "answers.md", "\n".join([*(_as_item(line) for line in answers(study)), *absent]) + "\n")
    written = [out / "answers.md"]
    for name, frame, cells in tables(part, absent):
        written += write_table(out, name, frame, cells)
    return written


def tables(part: Part, absent: Sequence[str] = ()) -> Iterator[tuple[str, pd.DataFrame, Cells]]:
    """(name, with all digits, as people read it) of every table of a part; `absent` are notes on missing runs."""
    yield "table", part.table, table_cells(part.table, [*part.mixed, *absent])
    compared = to_frame([*part.comparisons, *part.others], part.absent, part.leaking)
    marks = marks_by_label(part.table)
    notes = [f"{mark} {NOTES[mark]}" for mark in NOTES if any(mark in held for held in marks.values())]
    notes = [*notes, *absent]
    yield "comparisons", compared, cells_of(compared, columns=COMPARED, marks=marks, notes=notes)
    for name, frame, columns in section_tables(part):
        yield name, with_absent(frame, part.absent), cells_of(frame, columns=columns, marks=marks, notes=notes)
    if len(part.scores):
        yield "scores", part.scores, score_cells(part.scores, part.reference, marks, notes)


def _as_item(line: str) -> str:
    return f"- {line.strip()}" if line.startswith(" ") else line


def _print_absent(study: Study) -> None:
    more = len(study.absent) - MOST_ABSENT
    lines = [run.sentence for run in study.absent[:MOST_ABSENT]]
    _print_list("Without a result, and named in every file:", lines + [f"and {more} more"] * (more > 0))


def _print_list(heading: str, lines: Sequence[str]) -> None:
    if lines:
        print("\n  ".join([heading, *lines]), end="\n\n")


def _print_files(written: Sequence[Path]) -> None:
    """Folder by folder, what stands there in one form alone, and then the names that stand there in several."""
    for folder in dict.fromkeys(path.parent for path in written):
        forms: dict[str, list[str]] = {}
        for path in (path for path in written if path.parent == folder):
            forms.setdefault(path.stem, []).append(path.suffix)
        names: dict[str, list[str]] = {}
        for stem, suffixes in forms.items():
            if len(suffixes) == 1:
                names.setdefault("", []).append(stem + suffixes[0])
            else:
                names.setdefault(f"as {', '.join(suffixes[:-1])} and {suffixes[-1]}: ", []).append(PAGE.sub("-*", stem))
        print(f"{folder}: {'; '.join(form + ', '.join(dict.fromkeys(stems)) for form, stems in names.items())}")
