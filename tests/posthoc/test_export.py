"""Exported runs: what is refused, what stands in the folder, and that other libraries open it without us."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_study.cli import main
from moe_study.data import load_run_tokenizer
from moe_study.data.tokenizers import Gpt2Tokenizer, Tokenizer, gpt2_ranks, train_bpe
from moe_study.design.causality import verdict_of
from moe_study.design.config import DataConfig, RunConfig, TokenizerConfig
from moe_study.design.plain import from_plain, to_plain
from moe_study.design.routing import Routing
from moe_study.design.verdict import CAUSAL, MIXES, OWN_FUTURE, Verdict
from moe_study.errors import StudyError
from moe_study.files import write_json_atomic
from moe_study.posthoc.export import RECORD, export_run, portable, write_tokenizer
from moe_study.posthoc.export_card import Facts, card
from moe_study.runs.folder import RunFolder
from moe_study.training.models import load_model
from tests.data.conftest import downloads  # noqa: F401 - a fixture
from tests.data.test_tokenizer_json import AWKWARD
from tests.fixtures import tiny_texts
from tests.posthoc.runs import CONTEXT, VOCABULARY, run_config, untrained_run

DENSE: dict[str, Any] = {"selection": "dense"}
TOP_2: dict[str, Any] = {"k": 2}
LEAKING: dict[str, Any] = {"unit": "sequence", "context": "unit_mean"}
LOADS = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "model, tokenizer = (auto.from_pretrained(sys.argv[1]) for auto in (AutoModelForCausalLM, AutoTokenizer))\n"
)


def run_of(tmp_path: Path, routing: dict[str, Any], kind: str = "bytes") -> RunFolder:
    """A run with initial weights; its folder holds its tokenizer."""
    tokenizer = TokenizerConfig(kind, VOCABULARY if kind == "bpe" else None)
    folder = untrained_run(tmp_path / "runs", from_plain(Routing, routing), tokenizer=tokenizer)
    if kind == "bpe":
        texts = tiny_texts("de", "news", 20)
        (folder.path / "tokenizer.json").write_text(train_bpe(texts, VOCABULARY), encoding="utf-8")
    return folder


# Refusals -----------------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_config(tmp_path / "runs", Routing())
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        folder.preempt(4)
    assert main(["export", str(folder.path)]) == 1
    assert "is preempted, not done; train it to its end, then export it" in capsys.readouterr().err
    assert not folder.export_folder.exists()


def test_a_run_on_images_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(run_config(tmp_path / "runs", Routing()), task="images")
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(1)
        folder.finish({})
    with pytest.raises(StudyError, match="trained on images; only models of text are exported"):
        export_run(folder)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    folder, out = run_of(tmp_path, TOP_2), tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(StudyError, match="holds something else than an export; name another folder with --out"):
        export_run(folder, out)
    with pytest.raises(StudyError, match="holds something else"):
        export_run(folder, out / "thesis.txt")
    write_json_atomic(out / RECORD, {"key": "0123456789abcdef"})
    with pytest.raises(StudyError, match="holds the export of run 0123456789abcdef"):
        export_run(folder, out)
    assert sorted(path.name for path in out.iterdir()) == [RECORD, "thesis.txt"]


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in [name for name in sys.modules if name.startswith("moe_study.hf")]:
        monkeypatch.delitem(sys.modules, name)
    folder = run_of(tmp_path, TOP_2)
    assert main(["export", str(folder.path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: transformers is missing (") and said.endswith("type: pip install 'moe-study[hf]'\n")
    assert not folder.export_folder.exists()


def test_a_run_that_is_trained_anew_has_no_export_of_before(tmp_path: Path) -> None:
    folder = run_of(tmp_path, TOP_2)
    folder.export_folder.mkdir()
    folder.forget_training()
    assert not folder.export_folder.exists()


# The card, and what is told -----------------------------------------------------------------------------------------


def facts_of(routing: dict[str, Any], causality: Verdict = CAUSAL, **result: Any) -> Facts:
    config = portable(run_config(Path("runs"), from_plain(Routing, routing)))
    provenance = {"commit": "c0ffee", "diff": "d1ff", "version": "0.1.0", "data_fingerprint": "f00d"}
    return Facts("0123456789abcdef", config, result, provenance, "ead5", 0, causality, [])


def test_the_card_says_what_the_run_was_and_what_came_of_it() -> None:
    losses = {"de": {"loss": 1.5, "tokens": 10}, "a|b<i>": {"loss": 2.5, "tokens": 20}, "unseen": {"tokens": 0}}
    told = facts_of(TOP_2, validation_loss=2.0, validation_perplexity=7.389, num_params=12345, by_language=losses)
    text = card(told, "MoeStudyForCausalLM", 2e-7)
    numbers, origin = ("2.0000", "7.39", "12.3k", "2e-07"), ("`f00d`", "`c0ffee` with changes", "`ead5`")
    assert all(expected in text for expected in ("token top-2 of 4", *numbers, *origin))
    assert "import moe_study.hf" in text and "pipeline_tag: text-generation" in text
    assert "| a&#124;b&lt;i&gt; | 2.5000 | 20 |" in text and "unseen" not in text
    assert "†" not in text and "generates nothing" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("found", "mark", "why"),
    [(OWN_FUTURE, "†", "reads later tokens"), (MIXES, "‡", "reads other sequences of the batch")],
)
def test_the_card_of_a_leaking_run_says_so_at_the_top_and_at_every_number(found: Verdict, mark: str, why: str) -> None:
    losses = {"de": {"loss": 1.5, "tokens": 10}, "en": {"loss": 1.25, "tokens": 10}}
    text = card(facts_of(TOP_2, found, validation_loss=2.0, by_topic=losses), "MoeStudyForCausalLM", 0.0)
    top = text[: text.index("## Loading")]
    assert f"> **{mark} The routing of this model {why}" in top
    assert f"> It generates nothing, because the routing of this model {why}." in top
    assert all(f"{loss}{mark} |" in text for loss in ("2.0000", "1.5000", "1.2500"))
    assert "pipeline_tag" not in text


def test_a_plain_card_needs_no_package_of_ours() -> None:
    text = card(facts_of(DENSE), "GPT2LMHeadModel", 0.0)
    assert "import moe_study" not in text and "pip install" not in text and "mixture-of-experts" not in text


def test_nothing_of_the_place_of_training_is_told(tmp_path: Path) -> None:
    place = str(tmp_path / "secret")
    data = DataConfig(recipe="local_files", options={"path": place, "limit": 3}, root=place)
    config = dataclasses.replace(run_config(Path(place), Routing()), data=data)
    told = portable(config)
    assert place not in json.dumps(to_plain(told))
    assert told.data.options == {"limit": 3}
    assert dataclasses.replace(told.run, dispatch=config.run.dispatch) == config.run


# Folders that other libraries open ----------------------------------------------------------------------------------


def in_a_new_process(script: str, folder: Path) -> Any:
    """What `script` prints as JSON, in a Python that knows nothing of this one."""
    done = subprocess.run(
        [sys.executable, "-c", "import json, sys\n" + script, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_dense_run_opens_without_this_project(kind: str, tmp_path: Path) -> None:
    folder = run_of(tmp_path, DENSE, kind)
    exported = export_run(folder)
    assert (exported.architecture, exported.folder) == ("GPT2LMHeadModel", folder.export_folder)
    text = "größer als <|endoftext|> 日本"
    found = in_a_new_process(
        f"{LOADS}ids = tokenizer({text!r}, return_tensors='pt').input_ids[:, :{CONTEXT}]\n"
        "logits = model(ids).logits.tolist()\n"
        "ours = [name for name in sys.modules if name.startswith('moe_study')]\n"
        "print(json.dumps([ids.tolist(), logits, ours, type(model).__name__, tokenizer.decode(ids[0])]))",
        exported.folder,
    )
    ids, logits, ours, name, decoded = found
    assert ours == [] and name == "GPT2LMHeadModel" and text.startswith(decoded.rstrip("\ufffd"))
    expected = load_model(folder)(torch.tensor(ids)).logits_BTV  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.tensor(logits), expected.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.long
def test_a_mixture_opens_and_generates_where_the_project_is_installed(tmp_path: Path) -> None:
    folder, out = run_of(tmp_path, TOP_2, "bpe"), tmp_path / "deep" / "model"
    assert main(["export", str(folder.path), "--out", str(out)]) == 0
    found = in_a_new_process(
        f"import moe_study.hf\n{LOADS}"
        "texts = tokenizer(['der', 'das Haus'], return_tensors='pt', padding=True)\n"
        "new = model.generate(**texts, max_new_tokens=3, min_new_tokens=3)\n"
        "print(json.dumps([type(model).__name__, texts.input_ids.shape[1], new.shape[1]]))",
        out,
    )
    assert found[0] == "MoeStudyForCausalLM" and found[2] == found[1] + 3
    files = {path.name for path in out.iterdir()}
    assert files >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", RECORD}
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    assert record["key"] == folder.key and record["architecture"] == "MoeStudyForCausalLM"
    assert from_plain(RunConfig, record["config"]).routing == folder.read_config().routing


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bytes", "bpe", "gpt2"])
@pytest.mark.parametrize("model_type", ["gpt2", "moe_study"])
def test_transformers_own_tokenizer_gives_our_ids(
    kind: str, model_type: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever it thinks of the model's class: of GPT-2 it has a tokenizer by name, which would split otherwise."""
    from transformers import AutoTokenizer

    if kind == "gpt2":
        ours: Tokenizer = Gpt2Tokenizer(gpt2_ranks(request.getfixturevalue("downloads"), progress=False))
    else:
        ours = load_run_tokenizer(run_of(tmp_path, TOP_2, kind))
    write_json_atomic(tmp_path / "config.json", {"model_type": model_type})
    write_tokenizer(ours, CONTEXT, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in AWKWARD:
        ids = ours.encode(text)
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == theirs.bos_token_id == theirs.pad_token_id == ours.end_of_text
    assert theirs(["a", "a b c d"], padding=True).attention_mask[0][0] == 0
    assert theirs.model_max_length == CONTEXT


@pytest.mark.long
def test_an_export_is_made_anew_in_its_place_and_fails_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_of(tmp_path, LEAKING)
    assert verdict_of(folder.read_config()).leaks
    result = folder.result()
    assert result is not None
    write_json_atomic(folder.result_file, {**result, "causality": to_plain(OWN_FUTURE)})
    assert main(["export", str(folder.path)]) == 0
    said = capsys.readouterr()
    assert "† The routing of this model reads later tokens" in said.out and "it/s" not in said.err
    (folder.export_folder / "stale.txt").write_text("x")
    assert main(["export", str(folder.path)]) == 0
    before = {path.name: path.stat().st_mtime_ns for path in folder.export_folder.iterdir()}
    assert "stale.txt" not in before

    def breaks(*_: Any) -> str:
        raise StudyError("no card today")

    with monkeypatch.context() as patch:
        patch.setattr("moe_study.posthoc.export.card", breaks)
        with pytest.raises(StudyError, match="no card today"):
            export_run(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.export_folder.iterdir()} == before
    assert not list(folder.path.glob(".export*"))


@pytest.mark.long
def test_a_model_that_came_out_wrong_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import moe_study.hf

    folder, faithful = run_of(tmp_path, DENSE), moe_study.hf.as_gpt2

    def wrong(*arguments: Any) -> Any:
        model = faithful(*arguments)
        model.transformer.h[0].mlp.c_fc.weight.data.mul_(1.01)
        return model

    monkeypatch.setattr(moe_study.hf, "as_gpt2", wrong)
    with pytest.raises(StudyError, match=r"logits differ by \S+ from the run's, so it is not kept"):
        export_run(folder)
    assert not folder.export_folder.exists()


@pytest.mark.long
def test_a_disk_that_is_too_small_is_one_sentence(tmp_path: Path) -> None:
    folder = run_of(tmp_path, DENSE)
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from moe_study.cli import main\nsys.exit(main(['export', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + script, str(folder.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: cannot write {folder.export_folder}")
    assert "Traceback" not in done.stderr and not folder.export_folder.exists()
