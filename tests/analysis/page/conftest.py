"""A browser for all tests of a process: Debian's chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ADVICE = "install Debian's package chromium, and playwright (pip install -e '.[test]')"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Skips its test where no browser is, and lets it fail in CI."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no browser is here; {ADVICE}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()
