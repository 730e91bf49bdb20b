"""All that is kept of a sweep's runs beside their losses, and where an answer is read from it (see measure.py)."""

from collections.abc import Iterator
from pathlib import Path

from moe_study.analysis.results import elsewhere, gradients, lazy, load, sparsified, tokens
from moe_study.analysis.results.measure import OF, READING, Kept, Measure, keep_measure, read_rows
from moe_study.analysis.study import Study
from moe_study.errors import DataError

MEASURES: tuple[Measure, ...] = (
    tokens.MEASURE, sparsified.MEASURE, elsewhere.MEASURE, gradients.MEASURE, lazy.MEASURE, load.MEASURE,
)  # fmt: skip


def keep_measures(folder: Path, study: Study) -> list[Path]:
    """What the runs of `study` hold of every measure, written to results/NAME; the files."""
    return [path for measure in MEASURES for path in keep_measure(measure, folder, study)]


def kept_texts(folder: Path, study: Study) -> Iterator[tuple[Path, str]]:
    """(file, text as it has to be) of everything that is kept in results/NAME."""
    for measure in MEASURES:
        for of, path in measure.kept_in(folder):
            yield path.with_suffix(".md"), measure.text(Kept(read_rows(path), study, of))


def find_measure(written: str) -> tuple[Measure, str, str]:
    """(measure, of what, reading) of `tokens-brown/unseen`; DataError for one that there is not."""
    stem, _, reading = written.partition(READING)
    name, _, of = stem.partition(OF)
    measure = next((one for one in MEASURES if one.name == name), None)
    if measure is None:
        raise DataError(f"{written} names no measure; there are {', '.join(one.name for one in MEASURES)}")
    if of and "{probe}" not in measure.command:
        raise DataError(f"{written}: {name} is not measured on a probe; write {name}")
    if not of and "{of}" in measure.title:
        raise DataError(f"{written}: {name} is measured on a probe; say on which, as in {name}{OF}brown")
    if reading not in measure.sentences:
        known = ", ".join(f"{stem}{READING}{one}" if one else stem for one in measure.sentences)
        raise DataError(f"{written} is no reading of {name}; there are {known}")
    return measure, of, reading


def read_answer(written: str, folder: Path, study: Study, sweep: str) -> Iterator[str]:
    """A link to the table of a measure, and its sentences; the command that makes it where it was not kept.

    Items of a list, as Markdown: several sentences stand below the link. `sweep` is the name of results/NAME, with its
    scale.
    """
    measure, of, reading = find_measure(written)
    path = folder / f"{measure.stem(of)}.parquet"
    if not path.exists():
        probe = f" --probe {of}" if of else ""
        yield f"- not measured yet: `{measure.command.format(sweep=sweep, of=of, probe=probe)}`"
        return
    kept = Kept(read_rows(path), study, of)
    said, link = list(measure.sentences[reading](kept)), f"[{measure.title.format(of=of)}]({sweep}/{path.stem}.md)"
    if len(said) == 1:
        yield f"- {said[0]} ({link})"
    elif said:
        yield f"- {link}"
        yield from (f"  - {sentence}" for sentence in said)
