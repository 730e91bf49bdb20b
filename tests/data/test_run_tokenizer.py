import json
import shutil
from pathlib import Path

import pytest
import yaml

from moe_study.data import keep_tokenizer, load_run_tokenizer, prepare
from moe_study.data.tokenizers import gpt2_ranks
from moe_study.design.config import DataConfig, LogConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.plain import to_plain
from moe_study.errors import DataError
from moe_study.runs.folder import RunFolder
from tests.fixtures import tiny_data_config

TEXT = "Der Minister said: 2017 – „größer“ <|endoftext|>\n\n日本語\x00"


def run_of(tmp_path: Path, data: DataConfig) -> tuple[RunFolder, RunConfig]:
    log = LogConfig(runs_dir=str(tmp_path / "runs"))
    config = RunConfig(data=data, run=RunSettings(steps=1), log=log)
    return RunFolder.of(config), config


@pytest.mark.parametrize(
    "tokenizer", [TokenizerConfig("bytes"), TokenizerConfig("bpe", 400), TokenizerConfig("gpt2")], ids=lambda t: t.kind
)
def test_a_copied_run_folder_encodes_and_decodes_without_its_data(
    tmp_path: Path, tokenizer: TokenizerConfig, request: pytest.FixtureRequest
) -> None:
    if tokenizer.kind == "gpt2":
        (tmp_path / "data").mkdir()
        downloads = request.getfixturevalue("downloads")
        gpt2_ranks(downloads, progress=False)
        shutil.copytree(downloads, tmp_path / "data" / "downloads")
    data = tiny_data_config(tmp_path, tokenizer=tokenizer)
    corpus = prepare(data, progress=False)
    folder, config = run_of(tmp_path, data)
    with folder.claim(config):
        keep_tokenizer(corpus, folder)
        keep_tokenizer(corpus, folder)
    ids, lengths = corpus.tokenizer.encode(TEXT), corpus.token_bytes_V.tolist()
    shutil.copytree(folder.path, tmp_path / "elsewhere" / folder.key)
    for gone in ("data", "texts", "runs"):
        shutil.rmtree(tmp_path / gone)
    loaded = load_run_tokenizer(RunFolder(tmp_path / "elsewhere" / folder.key))
    assert loaded.encode(TEXT) == ids
    assert loaded.decode(ids) == TEXT
    assert (loaded.vocab_size, loaded.end_of_text) == (corpus.vocab_size, corpus.end_of_text)
    assert [len(piece) for piece in loaded.token_bytes()] == lengths


@pytest.fixture
def kept(tmp_path: Path) -> RunFolder:
    data = tiny_data_config(tmp_path, tokenizer=TokenizerConfig("bpe", 400))
    folder, config = run_of(tmp_path, data)
    with folder.claim(config):
        keep_tokenizer(prepare(data, progress=False), folder)
    return folder


def test_another_tokenizer_in_the_folder_is_refused_by_name(kept: RunFolder) -> None:
    path = kept.path / "tokenizer.json"
    whole = path.read_text()
    path.write_text(whole.replace('"vocab"', '"vocab" '))
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged: it is not the tokenizer of this run"):
        load_run_tokenizer(kept)


def test_a_run_of_an_older_version_takes_the_tokenizer_of_its_corpus(kept: RunFolder, tmp_path: Path) -> None:
    data = kept.read_config().data
    corpus = prepare(data, progress=False)
    (kept.path / "tokenizer.json").unlink()
    kept.provenance_file.write_text(json.dumps({"data_fingerprint": corpus.fingerprint}))
    assert load_run_tokenizer(kept).encode(TEXT) == corpus.tokenizer.encode(TEXT)
    kept.provenance_file.write_text(json.dumps({"data_fingerprint": "of other data"}))
    with pytest.raises(DataError, match=r"holds no tokenizer\.json, and the data that it was trained on is not in"):
        load_run_tokenizer(kept)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match=r"holds no tokenizer\.json"):
        load_run_tokenizer(kept)


def test_a_run_on_images_has_no_tokenizer(tmp_path: Path) -> None:
    config = RunConfig(task="images", data=DataConfig(name="digits", recipe="digits"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    with pytest.raises(DataError, match="was trained on digits, which needs no tokenizer"):
        load_run_tokenizer(RunFolder(tmp_path / "run"))
