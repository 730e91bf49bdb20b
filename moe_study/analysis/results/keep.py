"""Writing results/NAME/: what the runs of one sweep say, and what it takes to compute it again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from moe_study.analysis.plots import fonts
from moe_study.analysis.plots.all import readable, styles_of
from moe_study.analysis.plots.equal_loss import costs_at_equal_loss
from moe_study.analysis.plots.loss import paired_differences, perplexity_against_cost
from moe_study.analysis.plots.style import save_png
from moe_study.analysis.plots.trends import differences_over_size
from moe_study.analysis.report import answers, tables
from moe_study.analysis.results.archive import Archive, read_archive, rows_of, write_archive
from moe_study.analysis.results.manifest import manifest_of
from moe_study.analysis.results.measures import keep_measures
from moe_study.analysis.results.reached import reached
from moe_study.analysis.results.verdicts import findings
from moe_study.analysis.study import Part, Study, read_study
from moe_study.analysis.tables_out import markdown, to_csv
from moe_study.errors import StudyError
from moe_study.files import write_bytes_atomic, write_text_atomic
from moe_study.runs.members import read_members
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split

TABLES = ("table", "comparisons", "equal_loss")  # and all in which something was tested
PICTURE = "differences"


def keep(runs_dir: Path, sweep: str, out: Path, claims: Claims) -> list[Path]:
    """Write out/NAME/ for the sweep NAME@SCALE of `runs_dir`; what was written. StudyError where no run is done."""
    study = read_study([runs_dir], sweep)
    if not study.parts:
        raise StudyError(f"no run of {sweep} is done yet, so there is nothing to keep")
    members = read_members(runs_dir, sweep)
    folder = out / sweep
    rows = rows_of(study.frame)
    written = write_archive(folder, rows, members, manifest_of(sweep, members, rows, claims))
    again = read_archive(folder)
    return [*written, *write_answers(study, again, claims), *keep_measures(folder, study)]


def write_answers(study: Study, archive: Archive, claims: Claims) -> list[Path]:
    """Answers, tables and pictures of a study."""
    folder = archive.folder
    write_text_atomic(folder / "answers.md", "\n".join(_answers(study, archive, claims)) + "\n")
    written = [folder / "answers.md"]
    for part in study.parts:
        own = folder / part.name if part.name else folder
        for name, frame, cells in tables(part, [f"without a result: {run.sentence}" for run in part.absent]):
            if name in TABLES or _holds_tests(frame):
                write_bytes_atomic(own / f"{name}.csv", to_csv(frame))
                write_text_atomic(own / f"{name}.md", markdown(cells) + "\n")
                written += [own / f"{name}.csv", own / f"{name}.md"]
        written += _pictures(part, own)
    return written


def _holds_tests(frame: pd.DataFrame) -> bool:
    return "p_holm" in frame and bool(frame["p_holm"].notna().any())


def _answers(study: Study, archive: Archive, claims: Claims) -> Iterator[str]:
    manifest = archive.manifest
    yield f"# {archive.name}"
    yield ""
    yield f"`{manifest['command']}`: {manifest['done']} of {manifest['runs']} runs are done,"
    yield f"{manifest['hours_by_the_clock']:.2f} hours by the clock of {'; '.join(manifest['hardware'])}."
    yield ""
    for one in findings(study, claims):
        yield f"- {one.sentence}"
    for reach in reached(study, claims):
        yield f"- {reach.sentence}"
    yield ""
    yield "What moe-study plots says of the same runs (tables that are not beside this file are where plots writes):"
    yield ""
    for line in answers(study):
        yield f"- {line.strip()}" if line.startswith(" ") else f"\n{line}\n" if line else ""
    for run in study.absent:
        yield f"- without a result: {run.sentence}"


def _pictures(part: Part, out: Path) -> Iterator[Path]:
    """Loss against cost, the differences, and what else the sweep asks for (trends, costs at equal loss), as PNGs."""
    drawn = readable(part)
    styles = styles_of(drawn)
    figures = {"perplexity": perplexity_against_cost(drawn, styles)}
    if len(styles) > 1:
        figures[PICTURE] = paired_differences(drawn, styles)
    if (over_size := differences_over_size(part.trends)) is not None:
        figures["trends"] = over_size
    if (at_equal_loss := costs_at_equal_loss(part.reaches)) is not None:
        figures["equal-loss"] = at_equal_loss
    for name, figure in figures.items():
        fonts.choose_fonts(figure)
        yield save_png(figure, out, name)


def sweeps_to_keep(launched: Sequence[str], committed: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Which of the sweeps that were launched are kept: those `asked` for, or all that are committed.

    StudyError for one that was never launched, and where there is none to keep.
    """
    there = f"there are {', '.join(launched)}" if launched else "none was launched there"
    if not asked:
        if not (found := [name for name in launched if split(name)[0] in committed]):
            raise StudyError(f"no committed sweep to keep: {there}; name a folder of runs, or a sweep by --sweep")
        return found
    kept = []
    for name in asked:
        own = [one for one in launched if name in (one, split(one)[0])]
        if not own:
            raise StudyError(f"no sweep {name} was launched; {there}")
        kept += own
    return list(dict.fromkeys(kept))
