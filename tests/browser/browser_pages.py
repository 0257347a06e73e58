"""What the browser's tests ask of a page."""

from __future__ import annotations

from playwright.sync_api import Page

WIDE, NARROW = 1400, 390


def keys_in_list(page: Page) -> list[str]:
    """Keys of the rows that exist, in order."""
    return page.eval_on_selector_all(
        ".v-row", "rows => rows.sort((a, b) => a.dataset.place - b.dataset.place).map(row => row.dataset.key)"
    )


def count(page: Page) -> int:
    """How many trials the list says it has, once it has read the texts it was asked to search."""
    page.wait_for_function("() => /^[0-9]/.test(document.querySelector('.v-count').textContent)")
    return int(page.inner_text(".v-count").split()[0].replace(",", ""))


def settled(page: Page, pause: int = 150) -> None:
    """Wait until whatever was typed or pressed has been applied."""
    page.wait_for_timeout(pause)  # longer than the pause after which typing counts
    page.wait_for_function("() => !document.querySelector('#episodes').dataset.busy")
