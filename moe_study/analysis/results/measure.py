"""What is kept of a sweep's runs beside their losses: a Measure for each thing that finished runs were measured for.

To add one, write a file beside this one (sparsified.py is a short one) that ends in

    MEASURE = Measure("sparsify", "with parts off", "moe-study ... --sweep {sweep}", collect, text, {"": sentences})

and put its MEASURE into the list of measures.py. From then on

- `moe-study results RUNS --sweep NAME` calls `collect` and writes results/NAME/sparsify.parquet, and sparsify.md with
  its `text`; a test writes the text of every committed parquet again and compares;
- results/questions.yaml may say that a question is read from it (`read: {xmoe/dense: [comparisons, sparsify]}`):
  its `sentences` stand in results/README.md, or `command` where no run was measured yet.

Rows begin with what names their run (FinishedRun.place), as a study's frame has it; whatever comes behind is the
measure's own.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from moe_study.analysis.frame import Row, done
from moe_study.analysis.plots import fonts
from moe_study.analysis.plots.all import readable
from moe_study.analysis.plots.style import save_png
from moe_study.analysis.records import records
from moe_study.analysis.study import Part, Study
from moe_study.errors import DataError
from moe_study.files import write_bytes_atomic, write_text_atomic
from moe_study.runs.folder import RunFolder

OF = "-"  # between the name of a measure and what was measured: tokens-brown
READING = "/"  # between that and one of its readings: tokens-brown/unseen


class Kept(NamedTuple):
    """What was kept of one measure, and the study of the same runs."""

    rows: pd.DataFrame
    study: Study
    of: str = ""  # the probe, of a measure that is made on one


class FinishedRun(NamedTuple):
    """A run with a result, for `collect` to measure."""

    row: Row  # of the study's frame
    part: Part

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.row["folder"])

    @property
    def place(self) -> dict[str, Any]:
        """What its rows begin with: key, label and seed."""
        return {"key": self.row["key"], "label": self.row["label"], "seed": int(self.row["seed"])}

    @property
    def place_in_part(self) -> dict[str, Any]:
        """The same with the name of the evaluation set, for rows that are compared within each."""
        return {**self.place, "part": self.part.name}


def finished_runs(parts: Iterable[Part]) -> Iterator[FinishedRun]:
    """Every run with a result, part by part."""
    return (FinishedRun(row, part) for part in parts for row in records(done(part.frame)))


def any_run(_row: Row) -> bool:
    """What a measure that asks nothing of a run's configuration can be made of."""
    return True


@dataclass(frozen=True)
class Measure:
    """One kind of measurement of finished runs: where it comes from, and what is said of it."""

    name: str  # of its files
    title: str  # of a link to its table
    command: str  # with which runs are measured; {sweep}, {of} and {probe} (--probe OF) stand for what is asked
    collect: Callable[[Study], Mapping[str, pd.DataFrame]]  # rows by what they are of; from the folders of the runs
    text: Callable[[Kept], str]  # Markdown: what people read of the rows
    sentences: Mapping[str, Callable[[Kept], Iterable[str]]]  # by the name of a reading; "" is the plain one
    draw: Callable[[Kept, Path], Iterable[Path]] | None = None  # its picture, as that path with .png; what was written
    can: Callable[[Row], bool] = any_run  # whether a run is one that it can be made of

    def stem(self, of: str) -> str:
        """The name of its files, without ending."""
        return f"{self.name}{OF}{of}" if of else self.name

    def kept_in(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """(of what, the parquet) of all that was kept of it in results/NAME."""
        for path in sorted(folder.glob(f"{self.name}*.parquet")):
            own, _, of = path.stem.partition(OF)
            if own == self.name:
                yield of, path

    def is_of_many(self, rows: pd.DataFrame, study: Study) -> bool:
        """Whether `rows` are of half of the runs that it can be made of, or more."""
        able = {run.row["key"] for run in finished_runs(study.parts) if self.can(run.row)}
        return 2 * rows["key"].nunique() >= len(able)


def keep_measure(measure: Measure, folder: Path, study: Study) -> list[Path]:
    """Write what the runs of `study` hold of a measure; the files.

    What was kept before and no run holds now stays, and its text is written anew, for the study may have grown. What
    was not is kept when half of them hold it: a few have it by chance, since other sweeps that share them were asked.
    """
    for of, rows in measure.collect(study).items():
        kept_before = (folder / f"{measure.stem(of)}.parquet").exists()
        if len(rows) and (kept_before or measure.is_of_many(rows, study)):
            buffer = io.BytesIO()
            rows.to_parquet(buffer, index=False)
            write_bytes_atomic(folder / f"{measure.stem(of)}.parquet", buffer.getvalue())
    written = []
    for of, path in measure.kept_in(folder):
        kept = Kept(read_rows(path), study, of)
        write_text_atomic(path.with_suffix(".md"), measure.text(kept))
        drawn = [] if measure.draw is None else measure.draw(kept, path.with_suffix(""))
        written += [path, path.with_suffix(".md"), *drawn]
    return written


def draw_parts(kept: Kept, path: Path, figure_of: Callable[[Part], Figure | None]) -> Iterator[Path]:
    """The picture of each evaluation set that has one: `path`, and -PART where there are several, with .png.

    `figure_of` is given each part with as many points as a picture can hold.
    """
    for part in kept.study.parts:
        if (figure := figure_of(readable(part))) is not None:
            fonts.choose_fonts(figure)
            yield save_png(figure, path.parent, f"{path.name}{OF}{part.name}" if part.name else path.name)


def rows_of_part(rows: pd.DataFrame, part: Part) -> pd.DataFrame:
    """The rows of a part's runs, by their key, with the labels that its points have today."""
    labels = dict(zip(part.runs["key"], part.runs["label"], strict=True))
    own = rows[rows["key"].isin(list(labels))]
    return own.assign(label=own["key"].map(labels))


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of one kept measure; DataError where the file is missing or damaged."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({error}); write it again with moe-study results") from error
