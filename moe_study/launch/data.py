"""Data before anything starts: it must be there, and a finished run counts only where it was trained on it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence

from moe_study.design.config import DataConfig, RunConfig
from moe_study.design.plain import to_plain
from moe_study.errors import DataError, StudyError
from moe_study.launch.execute import Job
from moe_study.runs.folder import RunFolder, State

SHOWN = 5  # runs named in one sentence


def check_data(configs: Sequence[RunConfig], job: Job) -> None:
    """DataError if a corpus that `job` would read is not there, or is damaged.

    Domains that are too short to be trained on, or judged, are named on standard error.
    """
    if not job.reads_data:
        return
    from moe_study.data import PreparedCorpus, open_data, unused_domains  # imports NumPy

    corpora: dict[str, tuple[DataConfig, set[int]]] = {}  # with the contexts that they are used at
    for config in configs:
        _, contexts = corpora.setdefault(_spelling(config.data), (config.data, set()))
        contexts.add(config.model.context)
    for data, contexts in corpora.values():
        opened = open_data(data)
        if not isinstance(opened, PreparedCorpus):
            continue
        for context in sorted(contexts):
            for sentence in unused_domains(opened, context):
                print(sentence, file=sys.stderr, flush=True)


def check_finished(configs: Iterable[RunConfig], job: Job) -> None:
    """DataError if finished runs of `configs` were trained on other data than what `job` would read now."""
    if job.reads_data and (sentence := about_other_data(configs)) is not None:
        raise DataError(sentence)


def about_other_data(configs: Iterable[RunConfig]) -> str | None:
    """A sentence on the finished runs of `configs` that do not count with the data at hand, and what to do.

    None where all count. One whose data is not prepared here, so that nothing can be compared, counts.
    """
    folders = list(_trained_on_other_data(configs))
    if not folders:
        return None
    more = f", and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
    were = "1 finished run was" if len(folders) == 1 else f"{len(folders)} finished runs were"
    return (
        f"{were} trained on other data than what is prepared now; set data.root to the data of that time, or give"
        f" log.runs_dir another folder to train on the new data, or remove the old results (moe-study remove --results"
        f" {' '.join(str(folder.path) for folder in folders[:SHOWN])}{more})"
    )


def _trained_on_other_data(configs: Iterable[RunConfig]) -> Iterator[RunFolder]:
    at_hand: dict[str, str | None] = {}  # fingerprints by configuration of the data
    for config in configs:
        folder = RunFolder.of(config)
        recorded = _recorded(folder)
        if recorded is None:
            continue
        spelling = _spelling(config.data)
        if spelling not in at_hand:
            from moe_study.data import fingerprint  # imports NumPy

            at_hand[spelling] = fingerprint(config.data)
        if at_hand[spelling] not in (None, recorded):
            yield folder


def _recorded(folder: RunFolder) -> str | None:
    """The fingerprint in the result of a finished run; None where there is none to compare."""
    try:
        result = folder.result() if folder.state() is State.DONE else None
    except StudyError:  # damaged, which others say
        return None
    return (result or {}).get("data_fingerprint")


def _spelling(data: DataConfig) -> str:
    return json.dumps(to_plain(data), sort_keys=True)
