"""The page in a browser: it asks for nothing, complains of nothing, and does what its readers do, by keyboard too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moe_study.analysis.page.page import write_page
from moe_study.analysis.study import read_study
from tests.analysis.page import made_up

pytestmark = pytest.mark.long

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made_up.plant_plain(tmp_path_factory.mktemp("plain"))
    return write_page(read_study([root]), root / "page.html", [root])


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made_up.plant_harmful(tmp_path_factory.mktemp("harmful"))
    return write_page(read_study([root], "harm"), root / "page.html", [root], "harm")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file and draws all of its charts; any message, error, request or dialog fails the test in the end."""
    contexts, complaints = [], []

    def open_file(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("() => page.drawAll()")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


def column(page: Any, table: str, place: int) -> list[str]:
    cells = page.locator(f"#{table} tbody tr").locator(f":scope > :nth-child({place})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def charts_without_marks(page: Any) -> list[str]:
    return page.evaluate(
        "() => [...document.querySelectorAll('.chart')]"
        ".filter((chart) => !chart.querySelector('svg .mark-symbol path, svg .mark-line path'))"
        ".map((chart) => chart.id)"
    )


def test_all_charts_are_drawn_without_a_complaint_or_a_request(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    assert page.locator(".chart").count() >= 12
    assert page.locator(".failed").count() == 0
    assert charts_without_marks(page) == []


def test_tables_sort_by_keyboard_up_and_down_and_say_so(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    heading = page.locator("#p0-points thead th").nth(2)
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    losses = [float(text) for text in column(page, "p0-points", 3)]
    assert losses == sorted(losses) and heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert [float(text) for text in column(page, "p0-points", 3)] == sorted(losses, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.locator("#said").inner_text() == "sorted by loss, descending"
    page.locator("#p0-points thead button").first.click()
    names = column(page, "p0-points", 1)
    assert names == sorted(names) and heading.get_attribute("aria-sort") == "none"


def test_cells_without_a_value_come_last_whichever_way(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    button = page.locator("#p0-points thead button").nth(5)  # the difference to the reference, which has none
    for _ in range(2):
        button.click()
        assert column(page, "p0-points", 6)[-1] == "–"


def test_points_and_seeds_are_toggled_by_keyboard(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    marks = "#p0-differences .mark-symbol path"

    def drawn() -> int:
        return int(page.locator(marks).count())

    before = drawn()
    page.locator("[data-point='token top-2']").focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"() => document.querySelectorAll('{marks}').length === {before - 1 - 3}")  # mean and seeds
    page.locator("[data-seed='1']").focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"() => document.querySelectorAll('{marks}').length === {before - 4 - 4}")
    page.locator("[data-all=points]").focus()
    page.keyboard.press("Enter")  # all
    page.keyboard.press("Enter")  # none
    page.wait_for_function(f"() => document.querySelectorAll('{marks}').length === 0")


def test_charts_zoom_by_keyboard_and_show_all_again(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    domain = "() => page.views.get('p0-curves').scale('x').domain()"
    low, high = page.evaluate(domain)
    for label, check in (
        ("Zoom in", lambda a, b: low < a < b < high),
        ("Move left", lambda a, b: a < low + 0.2 * (high - low)),
        ("Zoom out", lambda a, b: b - a > 0.6 * (high - low)),
        ("Show all", lambda a, b: (a, b) == (low, high)),
    ):
        page.locator(f"#p0-curves [aria-label='{label}']").focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        assert check(*page.evaluate(domain)), label


def test_what_is_pointed_at_is_told_in_numbers(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    page.locator("#p0-differences").scroll_into_view_if_needed()
    page.locator("#p0-differences .mark-symbol path[transform]").last.hover()
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    assert "difference" in tip.inner_text() and "point" in tip.inner_text()


def test_run_layer_and_label_of_experts_are_switched_by_keyboard(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    inside = page.locator(".inside").first
    text, maps = inside.locator(".text"), inside.locator(".maps")
    assert maps.locator("table").count() == 2  # lift, and loss without each expert
    first, classes = maps.inner_text(), text.evaluate("(e) => [...e.children].map((s) => s.className).join()")
    inside.locator("[data-choose=layer]").focus()
    page.keyboard.press("ArrowDown")
    assert inside.locator("[data-choose=layer]").input_value() == "1"
    assert text.evaluate("(e) => [...e.children].map((s) => s.className).join()") != classes
    inside.locator("[data-choose=label]").focus()
    page.keyboard.press("ArrowDown")
    assert maps.inner_text() != first
    inside.locator("[data-choose=run]").focus()
    page.keyboard.press("End")
    assert "†" in inside.locator("[data-choose=run] option:checked").inner_text()  # it reads later tokens


def test_a_token_tells_its_experts_and_their_lift_by_arrow_keys(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    inside = page.locator(".inside").first
    inside.locator(".text").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    told = inside.locator(".token").inner_text()
    assert "word" in told and "lift of expert" in told and "×" in told and "%" in told
    assert page.evaluate("() => document.activeElement.dataset.token") == "1"
    inside.locator(".experts button").first.focus()
    page.keyboard.press("Enter")
    kinds = set(inside.locator(".text span").evaluate_all("(all) => all.map((one) => one.className)"))
    assert kinds <= {"e0 u0", "other", "none"} and "other" in kinds


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_accessibility_has_no_serious_violation(
    plain: Path, open_page: Callable[..., Any], scheme: str, size: dict[str, int]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(plain, color_scheme=scheme, viewport=size)
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = Axe().run(page).response["violations"]
    serious = {one["id"]: one["nodes"][0]["html"] for one in found if one["impact"] in ("serious", "critical")}
    assert serious == {}


def test_nothing_is_wider_than_a_phone(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain, viewport=PHONE)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


def test_colours_follow_the_switch_in_charts_too(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain, color_scheme="light")
    mark = "() => getComputedStyle(document.querySelector('#p0-curves .mark-line path')).stroke"
    ground = "() => getComputedStyle(document.body.parentElement).backgroundColor"
    light = page.evaluate(mark), page.evaluate(ground)
    page.locator("#theme").select_option("dark")
    dark = page.evaluate(mark), page.evaluate(ground)
    assert dark[0] != light[0] and dark[1] != light[1]
    page.emulate_media(media="print")
    assert page.evaluate(ground) == light[1]


def test_a_picture_is_saved_with_colours_that_stand_alone(plain: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(plain)
    with page.expect_download() as saved:
        page.locator("#p0-curves [data-zoom=save]").click()
    svg = Path(saved.value.path()).read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "var(" not in svg and saved.value.suggested_filename == "p0-curves.svg"


def test_a_harmful_study_does_no_harm(harmful: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(harmful)
    assert charts_without_marks(page) == [] and page.locator(".failed").count() == 0
    for inside in page.locator(".inside").all():
        for choice in ("run", "layer", "label", "document"):
            select = inside.locator(f"[data-choose={choice}]")
            for value in range(select.locator("option").count()):
                select.select_option(str(value))
        for token in inside.locator(".text [data-token]").all()[:40]:
            token.hover()
    assert made_up.IMAGE in page.locator(".inside .token").first.inner_text()  # as text, among the labels
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img, iframe, main script, svg svg").count() == 0
    assert page.evaluate("() => document.documentElement.scrollWidth") <= DESK["width"]
