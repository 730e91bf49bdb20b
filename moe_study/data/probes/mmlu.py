"""mmlu: questions and answers of the six MMLU subjects that the study paper looks at (Fan et al., 2402.13089, Fig 2).

From the Hugging Face hub (cais/mmlu, Hendrycks et al. 2020), its test split at one commit. A document is a question
with its four answers, one a line, as a reader sees them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from moe_study.data.places import downloads_in
from moe_study.data.probes.base import ProbeDocument, ProbeRecipe, ProbeSource
from moe_study.data.recipes import hub
from moe_study.design.data_options import HubSource
from moe_study.errors import DataError

SUBJECTS = (
    "abstract_algebra",
    "college_biology",
    "college_chemistry",
    "global_facts",
    "management",
    "medical_genetics",
)
SOURCE = HubSource(repo="cais/mmlu", revision="c30699e8356da336a370243923dbaf21066bb9fe")


def _open(path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
    listing = hub.list_files(SOURCE, downloads_in(data_root))
    files = {}
    for subject in SUBJECTS:
        names = sorted(name for name in listing.files if name.startswith(f"{subject}/test-"))
        if not names:
            raise DataError(f"{SOURCE.repo} at {listing.commit[:12]} holds no test questions of {subject}")
        files[subject] = [hub.fetch(SOURCE, listing, name, progress) for name in names]
    notes = (listing.note,) if listing.note else ()
    return ProbeSource(f"{SOURCE.repo}@{listing.commit}", partial(_documents, files), notes=notes)


def _documents(files: Mapping[str, Sequence[Path]]) -> Iterator[ProbeDocument]:
    import pyarrow.parquet as pq

    for subject, paths in files.items():
        for path in paths:
            table = pq.read_table(path, columns=["question", "choices"])
            for row in table.to_pylist():
                text = "\n".join([row["question"].strip(), *row["choices"]])
                yield ProbeDocument(text, {"topic": subject.replace("_", " ")})


RECIPE = ProbeRecipe(version=1, open=_open)
