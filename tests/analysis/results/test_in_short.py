"""What is said first: headlines with their verdicts, pictures that hold every number, and a block of README.md."""

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import archives
from moe_study.analysis.results.forest import Line, forest
from moe_study.analysis.results.headlines import (
    HEADLINES,
    MOST_LETTERS,
    Against,
    Headline,
    Headlines,
    read_headlines,
    told,
)
from moe_study.analysis.results.in_short import BEGIN, END, in_short, with_block
from moe_study.analysis.results.papers import by_paper, number_of
from moe_study.errors import DataError
from moe_study.sweeps.claims import Claim, Claims, Expected
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.sweep_file import claims_of, sweep_names
from tests.analysis.results.launched import SWEEP, keep_unpictured, launch

SVG = "{http://www.w3.org/2000/svg}"
CLAIMS = Claims(
    "2402.13089, Table 1",
    (),
    (
        Claim("two", "dense", "Are two better?", "yes", Expected.LOWER),
        Claim("two", "dense", "Are they worse?", "yes", Expected.HIGHER),
        Claim("sequence", "two", "Which unit?"),
        Claim("lost", "two", "Never trained?", "yes", Expected.SAME),
    ),
)
HEAD = (
    Headline("mine/own", "Are two better?", "Two are better"),
    Headline("mine/own", "Are they worse?", "Two are worse"),
    Headline("mine/own", "Which unit?", "Sequence next to token"),
    Headline("mine/own", "Never trained?", "Nobody knows"),
    Headline("other", "Not run", "Not run"),
)
AGAINST = Against("mine/own", "dense 1x", "Next to the dense model")


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    root = tmp_path_factory.mktemp("short")
    keep_unpictured(launch(root / "runs", CLAIMS), SWEEP, root / "out", CLAIMS)
    return [answered(archive, CLAIMS) for archive in archives(root / "out")]


def test_headlines_are_told_with_their_verdicts_and_what_was_not_run_is_passed_over(sweeps):
    short = in_short(sweeps, Headlines(HEAD, AGAINST))
    text = "\n".join(short.lines)
    assert "1 sweep, 30 runs of " in text and "each comparison over 5 paired seeds" in text
    assert "Of 3 claims of the papers 1 hold at this size, 1 fail and 1 are undecided" in text
    assert "(2402.13089: 1 of 3 hold)" in text
    assert "- **holds**: Two are better: -0.1" in text and "- **fails**: Two are worse: -0.1" in text
    assert "- **higher**: Sequence next to token †: +0.0" in text
    assert "Nobody knows" not in text and "Not run" not in text
    assert "([mine/own@cpu](results/mine/own@cpu/answers.md))" in short.block("results/")


def test_a_headline_that_its_sweep_does_not_ask_is_one_sentence(sweeps):
    with pytest.raises(DataError, match="mine/own asks no question 'Which one'; correct its why:"):
        list(told([Headline("mine/own", "Which one", "a")], sweeps))
    with pytest.raises(DataError, match="no point of mine/own is called dense 9x; there are dense 1x"):
        in_short(sweeps, Headlines(HEAD, dataclasses.replace(AGAINST, reference="dense 9x")))


def test_the_largest_scale_that_was_kept_is_told(sweeps):
    (one,) = sweeps
    larger = dataclasses.replace(one, archive=dataclasses.replace(one.archive, name="mine/own@gpu"))
    for order in ([one, larger], [larger, one]):
        assert {found.of.archive.name for found in told(HEAD[:1], order)} == {"mine/own@gpu"}


def test_pictures_hold_every_line_and_say_it_to_those_who_do_not_see(sweeps):
    short = in_short(sweeps, Headlines(HEAD, AGAINST))
    claims, against = (ET.fromstring(short.pictures[name]) for name in ("claims.svg", "against.svg"))
    texts = [text.text for text in claims.iter(f"{SVG}text")]
    assert {"Two are better", "Two are worse", "Sequence next to token"} <= set(texts)
    assert any(text.endswith(" holds") for text in texts) and any(text.endswith(" fails") for text in texts)
    assert sum("hollow" in dot.get("class") for dot in claims.iter(f"{SVG}circle")) == 1
    assert len(list(against.iter(f"{SVG}circle"))) == 5  # every point but the reference
    assert "Two are better: holds" in short.alts["claims.svg"]
    assert "token top-2 −0.1" in short.alts["against.svg"] and "reads later tokens" in short.alts["against.svg"]
    assert in_short(sweeps, Headlines(HEAD, AGAINST)) == short


# The picture ------------------------------------------------------------------------------------------------------


def test_places_in_the_picture_are_those_of_the_numbers():
    lines = [Line("a", -0.1, -0.15, -0.05, "x", "good"), Line("b", 0.0, -0.05, 0.05, "y", "open"),
             Line("c & <d>", 0.1, float("nan"), float("nan"), "z", "bad", hollow=True)]  # fmt: skip
    root = ET.fromstring(forest(lines, "Title & more", "note", 0.02))
    x = [float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    bars = [
        (float(one.get("x1")), float(one.get("x2"))) for one in root.iter(f"{SVG}line") if "bar" in one.get("class")
    ]
    assert len(bars) == 2  # one value has no interval
    per_nat = (x[2] - x[0]) / 0.2
    assert bars[0] == pytest.approx((x[0] - 0.05 * per_nat, x[0] + 0.05 * per_nat), abs=0.2)
    (zero,) = [one for one in root.iter(f"{SVG}line") if one.get("class") == "zero"]
    assert float(zero.get("x1")) == pytest.approx(x[1], abs=0.1)
    (margin,) = [one for one in root.iter(f"{SVG}rect") if one.get("class") == "margin"]
    assert float(margin.get("width")) == pytest.approx(0.04 * per_nat, abs=0.2)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "c & <d>" in texts and "Title & more" in texts and "note" in texts


def test_an_interval_far_wider_than_the_rest_is_cut_at_the_edge():
    lines = [Line("a", -0.01, -0.02, 0.0, "", "good"), Line("b", 0.01, -9.0, 9.0, "", "open")]
    root = ET.fromstring(forest(lines, "t", "n"))
    x = [float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")]
    assert x[1] - x[0] > 50
    page = float(root.get("width"))
    assert all(0 < float(one.get(end)) < page for one in root.iter(f"{SVG}line") for end in ("x1", "x2"))


def test_the_picture_has_a_page_and_colours_for_light_and_dark():
    text = forest([Line("a", 0.0, -0.1, 0.1, "", "open")], "t", "n")
    assert "prefers-color-scheme: dark" in text and 'class="page"' in text and "<script" not in text
    dark = text.partition("prefers-color-scheme: dark")[2]
    for kind in ("page", "good", "bad", "open", "plain", "hollow"):
        assert f".{kind} {{" in dark, kind


# The files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "- a",
        "more: []",
        "headlines: a",
        "headlines: [a]",
        "headlines: [{sweep: a, why: b}]",
        "headlines: [{sweep: a, why: b, short: ''}]",
        f"headlines: [{{sweep: a, why: b, short: {'c' * (MOST_LETTERS + 1)}}}]",
        "against: {sweep: a}",
    ],
)
def test_headlines_that_cannot_be_read_are_one_sentence(tmp_path, content):
    (tmp_path / HEADLINES).write_text(content)
    with pytest.raises(DataError, match=r"headlines\.yaml") as caught:
        read_headlines(tmp_path / HEADLINES)
    assert "\n" not in str(caught.value)


def test_committed_headlines_are_questions_of_committed_sweeps():
    root = project_root()
    found = read_headlines(root / "results" / HEADLINES)
    assert found.against and found.against.sweep in sweep_names(root)
    for one in found.headlines:
        assert one.why in {claim.why for claim in claims_of(one.sweep, root).claims}, one


def test_a_block_takes_the_place_of_what_stood_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    text = with_block(path, "new")
    assert text == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    path.write_text(text)
    assert with_block(path, "new") == text


@pytest.mark.parametrize("text", [BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_marks_that_do_not_go_together_are_one_sentence(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(DataError, match=r"README\.md must have"):
        with_block(tmp_path / "README.md", "new")


def test_a_readme_without_marks_is_left_alone(tmp_path):
    assert with_block(tmp_path / "README.md", "new") is None
    (tmp_path / "README.md").write_text("mine")
    assert with_block(tmp_path / "README.md", "new") is None


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("2402.13089, Table 1", "2402.13089"),
        ("2308.00951 and its causal relatives", "2308.00951"),
        ("a book", ""),
        ("", ""),
    ],
)
def test_a_source_goes_to_its_paper(source, number):
    assert number_of(source) == number


def test_claims_stand_paper_by_paper_in_one_order(sweeps):
    (one,) = sweeps
    other = dataclasses.replace(one, claims=dataclasses.replace(CLAIMS, source="9999.00001"))
    soft = dataclasses.replace(one, claims=dataclasses.replace(CLAIMS, source="2308.00951, section 3"))
    nowhere = dataclasses.replace(one, claims=dataclasses.replace(CLAIMS, source="a book"))
    papers = by_paper([nowhere, other, soft, one])
    assert [paper.name for paper in papers] == ["2402.13089", "2308.00951", "9999.00001", "other sources"]
    assert papers[1].title == "2308.00951: Soft MoE"
    assert papers[0].sentence == "1 of 3 hold, 1 fail, 1 are undecided or lack runs."
