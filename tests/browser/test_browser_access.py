"""Axe, the checker of accessibility, finds nothing serious: light and dark, wide and narrow, in every state."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_pages import NARROW, WIDE, settled

import esr


@pytest.fixture(scope="module")
def episode(organism_study):
    return next(r.trial for r in esr.open(organism_study).activations.readings if r.kind == "episode")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing_serious(visit, organism_report, episode, width, scheme):
    # axe writes into the page, which the page's policy forbids: here alone it is switched off
    page = visit(organism_report, f"#trial={episode}&with=no-steering", width, scheme, bypass_csp=True)
    found = serious(page)
    page.keyboard.press("Escape")
    page.evaluate("for (const node of document.querySelectorAll('details')) node.open = true")
    page.evaluate("document.querySelector('#episodes').classList.remove('v-open')")
    found += serious(page, "#episodes")
    page.evaluate("document.querySelector('.v-help').showModal()")
    found += serious(page, ".v-help")
    page.evaluate("document.querySelector('.v-help').close()")
    page.fill("[name=q]", "no such words")
    settled(page)
    found += serious(page, "#episodes")
    assert found == []


def serious(page, within=None) -> list[str]:
    """Violations that axe calls serious or critical, with the elements."""
    results = Axe().run(page, within, {"resultTypes": ["violations"]}).response
    return [
        f"{violation['id']}: {node['target']} {node.get('failureSummary', '')}"
        for violation in results["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
