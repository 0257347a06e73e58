"""A real browser (Debian's chromium, driven by Playwright) over a report; nothing may reach the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import WIDE
from playwright.sync_api import Browser, Page, sync_playwright

import esr
from esr.reporting.assemble import write_report


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Browser]]:
    """Starts a browser with further switches. Without one these tests are skipped on a person's machine, and
    fail where CI is set."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        reason = "no chromium on this machine (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        yield lambda *more: playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *more])


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """One for all tests; each has a context of its own."""
    with launch() as browser:
        yield browser


@pytest.fixture(scope="session")
def organism_report(organism_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real study of the organism, with tokens read."""
    return write_report(esr.open(organism_study), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """``visit(report, hash)`` opens a page and waits for its viewer. At the end every page must have been silent: no
    message of error or warning, no exception, no request but for the file itself.
    """
    troubles: list[str] = []
    contexts = []

    def visit(
        report: Path, anchor: str = "", width: int = WIDE, scheme: Any = "light", ready: bool = True, **context: Any
    ) -> Page:
        height = 900 if width == WIDE else 844
        made = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
        contexts.append(made)
        made.set_default_timeout(20_000)
        page = made.new_page()
        allowed = report.resolve().as_uri()

        def only_the_file(route: Any) -> None:
            url = route.request.url.partition("#")[0]
            if url == allowed:
                route.continue_()
            else:
                troubles.append(f"request {url[:200]}")
                route.abort()

        page.route("**/*", only_the_file)
        page.on("console", lambda m: troubles.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(f"exception: {error}"))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.goto(allowed + anchor)
        if ready:
            page.wait_for_selector("#episodes[data-ready][data-shown]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert troubles == []
