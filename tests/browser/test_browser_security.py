"""Nothing that a study holds is executed, loaded or hidden by the page."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from browser_pages import NARROW, count, settled
from hostile_pages import HOSTILE, hostile_view
from playwright.sync_api import expect

from esr.reporting.report import render_report

UNSEEN_IN_PAGE = """
() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    if (walk.currentNode.parentElement.closest('script, style, noscript')) continue;
    const match = walk.currentNode.data.match(/(?![\\n\\t])[\\p{C}\\p{Zl}\\p{Zp}]/u);
    if (match) found.push(match[0].codePointAt(0).toString(16));
  }
  for (const node of document.querySelectorAll('body *'))
    for (const { name, value } of node.attributes)
      if (!['href', 'value', 'data-key'].includes(name) && /[\\p{C}\\p{Zl}\\p{Zp}]/u.test(value)) found.push(name);
  return found;
}
"""
"""Characters that show nothing or move others, in text or in attributes that are shown or read aloud."""


@pytest.fixture(scope="module")
def view():
    return hostile_view()


@pytest.fixture(scope="module")
def hostile_report(view, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    render_report(view, path)
    return path


def test_every_hostile_trial_is_shown_as_it_is(visit, hostile_report, view):
    """``visit`` fails on any dialog, error, blocked script or request."""
    page = visit(hostile_report, "#sort=study")
    assert count(page) == len(view.trials)
    page.focus(".v-list")
    page.keyboard.press("Home")
    for _ in range(len(view.trials) // 2 + 1):
        settled(page, 0)
        assert page.evaluate(UNSEEN_IN_PAGE) == []
        page.keyboard.press("j")
    tags = page.evaluate("[...new Set([...document.querySelectorAll('body *')].map(node => node.localName))]")
    assert not set(tags) & {"iframe", "link", "meta", "base", "object", "embed"}
    executed = "[...document.scripts].filter(s => s.type !== 'application/octet-stream').length"
    assert page.evaluate(executed) == 1
    assert page.evaluate("document.querySelectorAll('img:not([src^=\"data:image/svg\"])').length") == 0
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], [onfocus], [onmouseover]').length") == 0
    sections = page.evaluate("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert {"results", "episodes", "calibration", "provenance"} <= set(sections)
    expect(page.locator("#provenance")).to_be_visible()


def test_the_whole_response_is_there_in_visible_characters(visit, hostile_report, view):
    for word, shown in {
        HOSTILE[0]: HOSTILE[0],
        HOSTILE[5]: "\\x1b[31mred",
        HOSTILE[6]: "right\\u202eto\\u202cleft \\u2066x\\u2069 zero\\u200bwidth \\ufeff tag\\U000e0041",
        HOSTILE[7]: "lone \\ud800 and \\udfff surrogates 🙂",
        HOSTILE[8]: "nul \\x00 and \\x1f and \\x7f and \\x85 \\u2028 end",
    }.items():
        row = view.trials[view.trials["text"].str.startswith(word)].iloc[0]
        page = visit(hostile_report, "#" + urlencode({"trial": row["trial"]}))
        words = "".join(page.locator(".v-pane:first-child .v-words").all_text_contents())
        assert shown in words, shown


def test_a_line_of_a_megabyte_is_cut_and_can_be_had(visit, hostile_report, view):
    row = view.trials[view.trials["text"].str.startswith("longlong")].iloc[0]
    page = visit(hostile_report, "#trial=" + row["trial"], width=NARROW)
    words = page.locator(".v-pane:first-child .v-words").first
    assert len(words.text_content()) == 20_000
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    page.get_by_role("button", name="Show the other").first.click()
    settled(page)
    first = row["attempts"][0].end if row["attempts"] else len(row["text"])
    assert len(words.text_content()) == first


def test_hostile_names_filter_compare_and_link(visit, hostile_report, view):
    name = next(c for c in view.trials["condition"].unique() if c != "incidence")
    page = visit(hostile_report)
    page.select_option("[name=condition]", name)
    settled(page)
    assert count(page) == int(view.trials["condition"].eq(name).sum())
    page.fill("[name=q]", "</script><script>alert(1)")
    settled(page)
    assert 0 < count(page) <= len(view.trials)
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("c")
    settled(page)
    expect(page.locator(".v-pane").nth(1)).to_be_visible()
    address = page.evaluate("location.hash")
    again = visit(hostile_report, address)
    assert again.input_value("[name=condition]") == name
    assert count(again) == count(page)
    hostile_hash = "#" + urlencode(dict.fromkeys(("q", "condition", "trial", "with", "sort", "from"), HOSTILE[2]))
    visit(hostile_report, hostile_hash, ready=False).wait_for_selector("#episodes[data-ready]")


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.broken = 1'}))",
        "document.body.innerHTML = '<img src=x onerror=\"window.broken = 1\">'",
        "document.body.setAttribute('onclick', 'window.broken = 1'), document.body.click()",
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.invalid/x.png'}))",
        "document.body.append(Object.assign(document.createElement('iframe'), {srcdoc: '<b>x</b>'}))",
        "fetch('https://example.invalid/').catch(() => 0)",
        "document.querySelector('h1').setAttribute('style', 'color: red')",
        "location.href = 'javascript:window.broken = 1'",
    ],
)
def test_the_policy_stops_what_would_get_in(browser, hostile_report, attack):
    """The guard itself: if some text did become markup, the browser would refuse it, and say so."""
    page = browser.new_page()
    refused, requests = [], []
    page.on("console", lambda message: refused.append(message.text))
    page.route("https://**", lambda route: (requests.append(route.request.url), route.abort()))
    page.goto(hostile_report.as_uri())
    page.wait_for_selector("#episodes[data-ready]", state="attached")
    page.evaluate(f"try {{ {attack} }} catch (error) {{ console.error(String(error)) }}")
    page.wait_for_timeout(150)
    assert page.evaluate("window.broken") is None
    assert page.evaluate("getComputedStyle(document.querySelector('h1') || document.body).color") != "rgb(255, 0, 0)"
    assert requests == []
    assert any("Content Security Policy" in text or "TrustedHTML" in text or "Trusted" in text for text in refused)
    page.close()
