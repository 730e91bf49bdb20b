"""`moe-study inspect` as it is typed, on runs with initial weights."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_study.cli import main
from moe_study.data import probes
from moe_study.data.probes import ProbeDocument, ProbeRecipe, ProbeSource
from moe_study.design.config import TokenizerConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.runs.folder import RunFolder
from tests.posthoc.runs import CONTEXT, untrained_run

TOP_2: dict[str, Any] = {"k": 2}
HOSTILE = "Bücher \x1b]0;title\x07\x1b[2J 漢 مرحبا \u202eevil [bold red]"
Inspect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Inspect:
    """Runs the command on a run of the given routing: exit code, what was printed, what was complained about."""

    def command(routing: dict[str, Any], *arguments: str) -> tuple[int, str, str]:
        folder = untrained_run_of(tmp_path, routing)
        code = main(["inspect", str(folder.path), *arguments, "--data-root", str(tmp_path / "data")])
        return code, *capsys.readouterr()

    return command


def untrained_run_of(tmp_path: Path, routing: dict[str, Any]) -> RunFolder:
    bytes_alone = TokenizerConfig("bytes")
    return untrained_run(tmp_path / "runs", from_plain(Routing, routing), tokenizer=bytes_alone)


def test_all_layers_stand_as_rows_under_the_tokens(inspect: Inspect) -> None:
    code, out, _ = inspect(TOP_2, "--text", "abc")
    lines = out.splitlines()
    assert code == 0 and lines[1].split() == ["a", "b", "c"]
    for layer in range(3):
        name, number, *marks = lines[2 + layer].split()
        assert (name, number, len(marks)) == ("layer", str(layer), 3)
        assert all(len(set(mark.split(","))) == 2 for mark in marks)


@pytest.mark.long
def test_the_compiler_is_not_imported_for_an_answer(tmp_path: Path) -> None:
    """It took longer than all the rest of torch."""
    folder = untrained_run_of(tmp_path, TOP_2)
    script = (
        "import sys; from moe_study.cli import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or ('torch._dynamo' in sys.modules and 'the compiler was imported'))"
    )
    command = [sys.executable, "-c", script, "inspect", str(folder.path), "--text", "abc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "layer 0" in done.stdout, done.stderr


def test_one_layer_stands_as_text_with_marks(inspect: Inspect) -> None:
    code, out, _ = inspect(TOP_2, "--text", "abc", "--layer", "1")
    assert code == 0 and "layer 0" not in out
    assert "".join(part.partition("]")[2] for part in out.splitlines()[1].split("[")) == "abc"


def test_hostile_text_does_nothing_to_a_terminal(inspect: Inspect) -> None:
    for arguments in (["--text", HOSTILE], ["--text", HOSTILE, "--layer", "0"]):
        code, out, _ = inspect(TOP_2, *arguments)
        assert code == 0
        assert not set(out) & {"\x1b", "\x07", "\u202e"} and "\\x1b" in out and "\\u202e" in out


def test_json_holds_every_pick_of_every_token_and_nothing_that_json_does_not_know(inspect: Inspect) -> None:
    text = "one longer than a window"
    _, out, _ = inspect({"selection": "threshold", "threshold": 0.5}, "--text", text, "--json")
    read = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert read["windows"] == -(-len(text) // CONTEXT) and bytes(read["ids"]).decode() == text
    assert bytes.fromhex("".join(read["bytes"])).decode() == text
    assert read["loss"][0] is None and all(loss > 0 for loss in read["loss"][1:])
    for layer in read["layers"]:
        assert len(layer["picks"]) == len(layer["entropy"]) == len(text)
        for picks in layer["picks"]:
            weights = [pick["weight"] for pick in picks]
            assert len(picks) >= 1 and weights == sorted(weights, reverse=True)


def test_a_file_and_standard_input_are_read(
    inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("ab", encoding="utf-8")
    assert "2 tokens" in inspect(TOP_2, str(file))[1]
    for arguments in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"abc"), isatty=lambda: False))
        assert "3 tokens" in inspect(TOP_2, *arguments)[1]


@pytest.mark.parametrize("routing", [{"selection": "dense"}, {"selection": "soft"}, {"router": "hash"}])
def test_every_kind_of_run_can_be_looked_into(inspect: Inspect, routing: dict[str, Any]) -> None:
    code, out, _ = inspect(routing, "--text", "abc")
    assert code == 0 and ("it has no experts" in out) == (routing == {"selection": "dense"})


def test_a_run_that_is_routed_by_label_is_told_which(inspect: Inspect) -> None:
    by_label = {"router": "label", "unit": "sequence", "context": "label", "k": 1}
    assert "--label de or en" in inspect(by_label, "--text", "abc")[2]
    _, out, _ = inspect(by_label, "--text", "abc", "--label", "en")
    assert out.splitlines()[2].split() == ["layer", "0", "1", "1", "1"]


def test_what_a_capacity_drops_stands_in_brackets(inspect: Inspect) -> None:
    limited = {"k": 1, "num_experts": 2, "capacity": {"factor": 0.25, "group": "sequence"}}
    assert "(" in inspect(limited, "--text", "abcdefghijkl")[1].splitlines()[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", ""], "holds no token"),
        (["--text", "a", "--layer", "9"], "layer 9 has no experts; layers that have: 0, 1, 2"),
        (["--expert", "1"], "such as 1.3"),
        (["--expert", "x.1"], "such as 1.3"),
        (["nowhere.txt"], "nowhere.txt cannot be read"),
        (["file.txt", "--text", "a"], "not both"),
        (["file.txt", "--expert", "0.1"], "the file is about a text, and --expert looks at a probe"),
        (["--topic", "law", "--layer", "1"], "--layer is about a text, and --topic looks at a probe"),
        (["--expert", "0.1", "--label", "de"], "--label is about a text, and --expert looks at a probe"),
        (["--text", "a", "--probe", "brown"], "--probe is about the probe that --expert and --topic look at"),
        (["--text", "a", "--tokens", "5"], "--tokens is about the probe"),
        (["--topic", "law", "--path", "texts"], "--path is the folder of --probe local_files"),
        (["--expert", "9.0"], "layer 9 of"),
        (["--expert", "0.44"], "layer 0 has experts 0 to 3, and no 44"),
        (["--text", "a", "--label", "de"], "is not routed by label"),
        (["--topic", "law", "--probe", "wiki"], "there is no probe wiki"),
    ],
)
def test_a_wrong_question_gets_a_sentence(inspect: Inspect, arguments: list[str], sentence: str) -> None:
    code, out, err = inspect(TOP_2, *arguments)
    assert code == 1 and sentence in err and out == "" and len(err.splitlines()) == 1


def test_bytes_that_are_not_utf8_get_a_sentence(inspect: Inspect, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Bücher".encode("latin-1"))
    assert "is not UTF-8" in inspect(TOP_2, str(tmp_path / "latin"))[2]


@pytest.fixture
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("\x1bart", "law")
    documents = [ProbeDocument(f"{n} the {words[n % 2]}", {"topic": "al"[n % 2]}) for n in range(20)]
    recipe = ProbeRecipe(1, lambda path, root, progress: ProbeSource("1", lambda: documents))
    monkeypatch.setitem(probes.PROBES, "wiki_topics", recipe)


def test_an_expert_shows_domains_tokens_and_contexts(inspect: Inspect, small_probe: None) -> None:
    routing = {"k": 1, "num_experts": 2}
    code, out, _ = inspect(routing, "--expert", "1.0")
    assert code == 0 and "expert 1.0 of 2" in out and "topic a" in out and "topic l" in out
    assert "\x1b" not in out and "⟦" in out
    assert "shares with it was not counted" in out  # these runs have no training text
    profile = json.loads(inspect(routing, "--expert", "1.0", "--json")[1])
    assert {row["name"] for row in profile["domains"]} == {"a", "l"} and 0 < profile["share"] <= 1


@pytest.mark.parametrize("question", [["--expert", "1.0"], ["--topic", "l"]])
def test_a_dense_run_is_told_so_before_it_reads_a_probe(inspect: Inspect, question: list[str]) -> None:
    code, out, err = inspect({"selection": "dense"}, *question)  # the probe is not there, nor asked for
    assert code == 1 and out == "" and "is a dense run: it has no experts" in err


def test_json_of_one_layer_holds_that_layer(inspect: Inspect) -> None:
    read = json.loads(inspect(TOP_2, "--text", "abc", "--layer", "2", "--json")[1])
    assert [layer["layer"] for layer in read["layers"]] == [2]
    assert "layer 5 has no experts" in inspect(TOP_2, "--text", "abc", "--layer", "5", "--json")[2]


def test_in_a_file_a_text_is_not_broken_into_lines(inspect: Inspect) -> None:
    out = inspect({"k": 1, "num_experts": 1}, "--text", "word " * 60, "--layer", "0")[1]
    assert out.splitlines()[1] == "[0]" + "word " * 60


def test_a_topic_shows_the_experts_of_every_layer(inspect: Inspect, small_probe: None) -> None:
    code, out, _ = inspect(TOP_2, "--topic", "l")
    assert code == 0 and [f"expert of layer {layer}" in out for layer in range(3)] == [True] * 3
    assert "it has topic: a, l" in inspect(TOP_2, "--topic", "z")[2]
    found = json.loads(inspect(TOP_2, "--topic", "l", "--json")[1])
    assert all(sum(row["share"] for row in rows) == pytest.approx(1) for rows in found.values())
