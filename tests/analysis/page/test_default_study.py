"""The report of the default study, two seeds trained for two steps, and that of fifty runs, opened in a browser."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_study.analysis.page.page import write_page
from moe_study.analysis.study import read_study
from tests.analysis import planted
from tests.analysis.page import made_up
from tests.fixtures import tiny_texts, write_tiny_corpus

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
MOST_BYTES = 10_000_000


def write_probe(folder: Path) -> None:
    """Texts that no run trains on, as LANGUAGE/TOPIC/*.txt."""
    for language in ("en", "de"):
        for topic in ("news", "parliament"):
            (folder / language / topic).mkdir(parents=True)
            for number, text in enumerate(tiny_texts(language, topic, 6, seed=1)):
                (folder / language / topic / f"{number}.txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sweeps/first_look.yaml on a small corpus, looked into as `make study` does."""
    folder = tmp_path_factory.mktemp("study")
    write_tiny_corpus(folder / "texts")
    write_probe(folder / "probe")
    data = ["data=local_files", f"data.options.path={folder / 'texts'}", f"data.root={folder / 'data'}"]
    data += ["data.tokenizer.kind=bytes", "data.tokenizer.vocab_size=null", "data.validation_fraction=0.3"]
    small = ["run.steps=2", "run.tokens=null", "run.eval_tokens=1024", "model.width=12", "model.context=32"]
    for arguments in (
        ["-m", "moe_study.cli", "prepare", *data],
        [str(ROOT / "train.py"), "-m", "+sweep=first_look", *data, *small, "run.seed=0,1", "log.threads=1"],
        ["-m", "moe_study.cli", "specialise", "--sweep", "first_look", "--probe", "local_files", "--path",
         str(folder / "probe"), "--tokens", "3000", "--permutations", "49", "--jobs", "1"],
        ["-m", "moe_study.cli", "report", "--sweep", "first_look"],
    ):  # fmt: skip
        done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "plots" / "report.html"


def opened(browser: Any, path: Path) -> Any:
    """The page with all of its charts; whatever it complains of, or asks for, is in `complaints`."""
    page = browser.new_page()
    page.complaints = complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("() => page.drawAll()")
    return page


def test_the_report_of_the_default_study_opens_and_answers_its_questions(trained: Path, browser: Any) -> None:
    page = opened(browser, trained)
    assert page.complaints == [] and trained.stat().st_size < MOST_BYTES
    assert page.locator("h1").inner_text() == "first_look"
    assert "14 of 14 done" in page.locator(".facts").inner_text()
    assert page.locator(".answers li").count() == 7
    assert "Does a mixture beat the dense model of equal compute?" in page.locator(".answers").inner_text()
    assert "sequence top-2, unit mean †" in page.locator("#p0-points").inner_text()
    text = page.locator(".inside .text").first
    assert text.locator("[data-token]").count() > 50
    shown = text.inner_text().replace("⏎", "").split()
    assert {"the", "house", "government", "Gesetz", "müssen", "die"} & set(shown)
    assert "moe-study knockout --sweep first_look" in page.locator("#missing").inner_text()
    page.close()


def test_the_report_of_fifty_runs_opens(tmp_path: Path, browser: Any) -> None:
    root = made_up.plant_plain(tmp_path, seeds=range(5))
    balanced = [planted.BALANCED_2, planted.TOKEN_1]
    for width, routing in ((64, balanced[0]), (64, balanced[1]), (32, balanced[0]), (32, balanced[1])):
        planted.plant(root, [routing], [0.0], range(5), width=width)
    out = write_page(read_study([root]), tmp_path / "page.html", [root])
    page = opened(browser, out)
    assert page.complaints == [] and out.stat().st_size < MOST_BYTES
    assert "50 of 50 done" in page.locator(".facts").inner_text()
    assert page.locator("#p0-points tbody tr").count() == 10
    sets = json.loads(page.locator("#data").inner_text())["sets"]
    assert len(set(sets["p0-curves"]["columns"]["name"]["of"])) == 10
    page.close()
