"""Values of sweep files mean what they mean on the command line, and survive the way there."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from moe_study.errors import ConfigError
from moe_study.sweeps import values
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.sweep_file import sweep_names
from moe_study.sweeps.values import as_text, quoted, read_unquoted, read_yaml


def by_hydra(text: str):
    return OverridesParser.create().parse_override(f"key={text}").value()


@pytest.fixture
def read(tmp_path):
    def of(text: str, encoding: str = "utf-8"):
        (tmp_path / "mine.yaml").write_text(text, encoding=encoding)
        return read_yaml(tmp_path / "mine.yaml")

    return of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E6", 1e6), ("2_000", 2000), ("+5", 5), ("-.5", -0.5), ("inf", math.inf), ("0", 0),
        ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("Null", None),
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"),
        ("token_top2", "token_top2"), ("${run.batch_size}", "${run.batch_size}"), (r"C:\texts", r"C:\texts"),
        (r"a\\b", r"a\\b"), ("/my texts (1)/ä", "/my texts (1)/ä"), ("a=b", "a=b"), ("it's", "it's"), ("0_x", "0_x"),
        ("9" * 5000, "9" * 5000), ("int(3.0)", 3),
    ],
)  # fmt: skip
def test_an_unquoted_value_is_read_as_on_the_command_line(text, value):
    assert read_unquoted(text) == value
    assert type(read_unquoted(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "number"), [("010", 8), ("0x1f", 31), ("0b11", 3), ("1:30", 90), (".inf", math.inf), ("-.INF", -math.inf)]
)
def test_a_number_of_yaml_that_hydra_does_not_know_is_refused(text, number):
    with pytest.raises(ConfigError) as caught:
        read_unquoted(text)
    advice = f'write {number} or "{text}"'
    assert str(caught.value) == f"{text} is a text on the command line, and {number} in YAML; {advice}"
    assert read_unquoted(str(number)) == number  # the advice works


@pytest.mark.parametrize("text", ["2, 4", "a,b", "range(0,3)", "choice(1,2)"])
def test_several_values_without_brackets_are_refused(text):
    with pytest.raises(ConfigError, match="lists several values"):
        read_unquoted(text)


def test_in_quotes_everything_is_a_text(read):
    assert read("""{a: "2024", b: '1e-3', c: "null", d: !!str 7, e: "", f: 'C:\\texts\\'}""") == {
        "a": "2024", "b": "1e-3", "c": "null", "d": "7", "e": "", "f": "C:\\texts\\",
    }  # fmt: skip


def test_anchors_and_merges_work_and_own_keys_win(read):
    content = read("one: &one {k: 1, n: 1e-3}\ntwo: {<<: *one, k: 2}\nthree: *one\n", encoding="utf-8-sig")
    assert content == {"one": {"k": 1, "n": 0.001}, "two": {"k": 2, "n": 0.001}, "three": {"k": 1, "n": 0.001}}
    assert read("# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {x: 1,\n x: 2}", "line 3 cannot be read: the key x stands twice"),
        ("a: 1\n'a': 2", "line 2 cannot be read: the key a stands twice"),
        ("a: 1\nb: [0x10]", "line 2 cannot be read: 0x10 is a text on the command line, and 16 in YAML"),
        ("? [a, b]\n: 1", "a list or a mapping cannot be a key"),
        ("a: &a [*a]", "recursive"),
        ("a: !!python/name:os.system", "line 1 cannot be read"),
        ("a: 1\n---\nb: 2", "line 2 cannot be read"),
        ("a: [1", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_file_and_line(read, text, said):
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        read(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


VALUES = [
    None, True, False, 3, -2, 0.25, 1e-7, 1e300, "plain", "with space", "it's", 'say "it"', "both ' and \"", "a,b", "",
    [1, "x y"], [[1, 2], []], {"a": [1, 2], "b": {"c.d": "2024"}}, "2024", "1e-3", "null", "TRUE", "inf", "nan", "1_0",
    "C:\\texts", "C:\\", "\\\\host\\x'", "a\\'", 'a\\"', "\n\n", "tab\t", "ä 中", "$5 to $10", "{a}", "[1]",
    "range(1,3)", "~", "a=b", "#x", "-", "--x", "*", "010", "0x1f", "1:30", "on",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_values_survive_the_trip_through_an_override(composer, value):
    assert composer.compose([f"+data.options.x={as_text(value)}"]).value("data.options.x") == value


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "${" not in text))
def test_every_text_survives_the_trip(text):
    assert by_hydra(as_text(text)) == text
    assert by_hydra(quoted(text)) == text


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_what_is_written_without_quotes_reads_the_same_in_a_sweep_file(value):
    assert read_unquoted(as_text(value)) == value


@pytest.mark.parametrize("name", sweep_names(project_root()))
def test_both_parsers_read_a_committed_sweep_alike(name, monkeypatch):
    path = project_root() / "sweeps" / f"{name}.yaml"
    quickly = read_yaml(path)
    monkeypatch.setattr(values, "_QuickLoader", values._Loader)
    assert repr(read_yaml(path)) == repr(quickly)
