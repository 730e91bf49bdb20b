"""The page's HTML, read by a parser that is not a browser."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moe_study.analysis.page import experts
from moe_study.analysis.page.document import SCRIPTS, with_marks
from moe_study.analysis.page.page import page, write_page
from moe_study.analysis.page.tables import leak_marker
from moe_study.analysis.plots import style
from moe_study.analysis.study import read_study
from moe_study.cli import main
from moe_study.errors import StudyError
from tests.analysis import planted
from tests.analysis.page import made_up
from tests.analysis.page.made_up import IMAGE

FILES = Path(experts.__file__).parent / "files"


class Read(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []  # content of scripts and styles
        self.text = ""
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside
        if tag in ("script", "style"):
            self.raw.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, so_far = self.raw[-1]
            self.raw[-1] = (tag, so_far + data)
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def plain_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.plant_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def plain(plain_root: Path) -> str:
    return page(read_study([plain_root]), [plain_root])


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = made_up.plant_harmful(tmp_path_factory.mktemp("harmful"))
    return page(read_study([root], "harm"), [root], "harm")


def data_of(html: str) -> dict:
    return json.loads(Read(html).raw[1][1])


def test_nothing_is_fetched_and_only_what_the_policy_names_can_run(plain: str) -> None:
    read = Read(plain)
    (policy,) = [str(meta["content"]) for meta in read.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert not [one for tag in ("link", "img", "iframe", "object", "embed", "base") for one in read.of(tag)]
    for _, attributes in read.elements:
        assert "src" not in attributes and "style" not in attributes
        assert str(attributes.get("href", "#")).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in read.raw[0][1] and "@import" not in read.raw[0][1]


def test_all_of_a_study_stands_in_the_page_in_its_order(plain: str) -> None:
    read = Read(plain)
    names = [section["id"] for section in read.of("section")]
    assert names == ["question", "answers", "tables", "plots", "experts", "runs", "missing"]
    for text in ("token top-2 has lower loss than dense 2x", "Holm-adjusted", "Pareto fronts", "18 of 18 done"):
        assert text in read.text
    charts = data_of(plain)["charts"]
    assert {figure["id"] for figure in read.of("figure")} == charts.keys()
    wanted = ("curves", "gaps", "differences", "cost-flops", "information-planted-0", "knockout-planted-remove")
    assert {f"p0-{name}" for name in wanted} <= charts.keys()


def test_every_set_of_data_that_a_chart_draws_is_there_and_none_that_no_chart_draws(plain: str) -> None:
    data = data_of(plain)
    named = set(re.findall(r'"data": \{"name": "([^"]+)"\}', json.dumps(data["charts"])))
    assert named == data["sets"].keys()
    for frame in data["sets"].values():
        lengths = {len(column if isinstance(column, list) else column["at"]) for column in frame["columns"].values()}
        assert lengths == {frame["rows"]}


def test_every_colour_of_the_pictures_has_its_like_in_both_palettes() -> None:
    css = (FILES / "page.css").read_text()
    for colour in (*style.COLOURS, *style.GREYS):
        assert re.search(rf"--c-{colour[1:].lower()}: light-dark\({colour.lower()}, #", css), colour


def test_a_leaking_point_is_marked_in_tables_answers_charts_and_configurations(plain: str) -> None:
    read, data = Read(plain), data_of(plain)
    for text in (read.text, json.dumps(data, ensure_ascii=False)):
        named = [text[found.end() :][:2] for found in re.finditer("sequence top-2", text)]
        assert len(named) >= 3 and set(named) == {" †"}
    assert str(with_marks("a † b")).count("its routing reads later tokens") == 2  # to see, and to hear


def test_a_leaking_point_is_marked_in_what_is_missing_and_in_what_a_comparison_lacks(tmp_path) -> None:
    folders = planted.plant(tmp_path, seeds=(0, 1, 2))
    error = {"type": "Killed", "message": "of sequence top-2", "traceback": ""}
    planted.set_status(folders[-1], "failed", error, 12)
    html = page(read_study([tmp_path], rank_leaking=True), [tmp_path])
    text = Read(html).text
    named = [text[found.end() :][:2] for found in re.finditer("sequence top-2", text)]
    assert set(named) == {" †"} and len(named) > 10
    assert "without sequence top-2 †" in re.sub(r" \(its [^)]*\)", "", text)


def test_marks_are_set_once_and_on_whole_names_alone() -> None:
    mark = leak_marker(["soft", "token top-2", "token top-2, frozen"], {"soft", "token top-2"})
    said = "token top-2 beats token top-2, frozen; softmax, soft † and token top-2‡"
    assert mark(said) == "token top-2 † beats token top-2, frozen; softmax, soft † and token top-2 †‡"


def test_text_of_a_study_never_becomes_markup(harmful: str) -> None:
    read = Read(harmful)
    assert [tag for tag, _ in read.raw] == ["style", "script", *["script"] * (1 + len(SCRIPTS))]
    assert not read.of("img") and IMAGE in read.text and "{{7*7}}" in read.text
    assert "\u202e" not in harmful and "\x00" not in harmful and "⟨U+202E⟩" in read.text and "␀" in read.text
    data = data_of(harmful)
    inside = next(iter(data["inside"].values()))
    assert IMAGE in inside["labels"]["topic"] and IMAGE in inside["labels"]
    assert any("(10,000 characters)" in piece for one in inside["documents"] for piece in one["pieces"])


def test_what_is_missing_is_named_with_the_command_that_finds_it(tmp_path, harmful: str) -> None:
    assert f"failed at step 12 of 400: {IMAGE}" in Read(harmful).text
    planted.plant(tmp_path)
    text = Read(page(read_study([tmp_path]), [tmp_path])).text
    assert "moe-study specialise" in text and "moe-study knockout" in text and "Texts, coloured" not in text


def test_texts_without_a_tokenizer_are_left_out_and_said_to_be(tmp_path, plain_root) -> None:
    root = Path(shutil.copytree(plain_root, tmp_path / "runs"))
    for file in root.glob("*/tokenizer.json"):
        file.unlink()
    html = page(read_study([root]), [root])
    assert data_of(html)["inside"]["p0-inside-0"]["documents"] == []
    assert "holds no tokenizer.json" in Read(html).text


@pytest.mark.long
def test_runs_whose_data_would_make_the_page_too_heavy_are_left_out_lowest_seeds_first(
    plain_root, plain, monkeypatch
) -> None:
    whole = data_of(plain)["inside"]["p0-inside-0"]["runs"]
    monkeypatch.setattr(experts, "BUDGET", len(json.dumps(whole)) // 3 + 100)
    html = page(read_study([plain_root]), [plain_root])
    kept = data_of(html)["inside"]["p0-inside-0"]["runs"]
    assert 0 < len(kept) < len(whole) and {run["seed"] for run in kept} == {0}
    assert f"{len(kept)} of {len(whole)} runs, lowest seeds first" in Read(html).text


def test_points_beyond_what_plots_can_hold_stand_in_the_tables_alone(tmp_path, monkeypatch) -> None:
    from moe_study.analysis.plots import all as pictures

    monkeypatch.setattr(pictures, "MOST_POINTS", 3)
    planted.plant(tmp_path)
    html = page(read_study([tmp_path]), [tmp_path])
    assert html.count("data-point=") == 3 and "3 of 6 points are drawn" in Read(html).text


def test_runs_of_two_evaluation_sets_have_parts_of_their_own(tmp_path) -> None:
    planted.plant(tmp_path)
    planted.plant(tmp_path, seeds=(8, 9), context=64)
    html = page(read_study([tmp_path]), [tmp_path])
    charts = data_of(html)["charts"]
    assert {name.partition("-")[0] for name in charts} == {"p0", "p1"}
    ids = [attributes["id"] for _, attributes in Read(html).elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_command_writes_the_file_and_says_how_large_it_is(tmp_path, capsys) -> None:
    planted.plant(tmp_path / "runs")
    out = tmp_path / "made" / "report.html"
    assert main(["report", str(tmp_path / "runs"), "--out", str(out), "--reference", "dense 2x"]) == 0
    assert f"{out}: 12 of 12 runs, " in capsys.readouterr().out
    assert "Loss minus that of dense 2x" in out.read_text(encoding="utf-8")


def test_where_nothing_is_done_one_sentence_says_so(tmp_path, capsys) -> None:
    for folder in planted.plant(tmp_path / "runs"):
        planted.set_status(folder, "running", step=5)
    with pytest.raises(StudyError, match="no run is done yet"):
        write_page(read_study([tmp_path / "runs"]), tmp_path / "x.html", [tmp_path / "runs"])
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "x.html")]) == 1
    assert "no run is done yet" in capsys.readouterr().err and not (tmp_path / "x.html").exists()
