"""The episode viewer in a real browser, over the report of a real study of the organism."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pandas as pd
import pytest
from browser_pages import NARROW, count, keys_in_list, settled
from playwright.sync_api import expect

import esr


@pytest.fixture(scope="module")
def study(organism_study):
    return esr.open(organism_study)


@pytest.fixture(scope="module")
def trials(study):
    return study.trials


@pytest.fixture(scope="module")
def episode(study):
    """A reading of a response that restarted."""
    return next(r for r in study.activations.readings if r.kind == "episode" and 3 < r.restart < len(r.values) - 3)


def test_the_list_has_every_trial_and_few_rows_exist(visit, organism_report, trials):
    page = visit(organism_report)
    assert count(page) == len(trials)
    assert 5 < len(keys_in_list(page)) < 40
    page.focus(".v-list")
    page.keyboard.press("End")
    settled(page)
    row = page.locator(".v-row[aria-selected=true]")
    assert row.get_attribute("aria-posinset") == row.get_attribute("aria-setsize") == str(len(trials))
    expect(row).to_be_in_viewport()


def test_every_filter_agrees_with_the_frame(visit, organism_report, trials):
    page = visit(organism_report)
    direction = trials["direction"].iloc[0]
    change = trials["improvement"]
    prompt = int(trials["prompt_index"].iloc[0])
    wanted = {
        ("condition", "incidence"): trials["condition"].eq("incidence"),
        ("direction", direction): trials["direction"].eq(direction),
        ("prompt", str(prompt)): trials["prompt_index"].eq(prompt),
        ("attempts", "restart"): trials["explicit_restarts"].gt(0),
        ("attempts", "1"): trials["n_attempts"].eq(1),
        ("attempts", "3"): trials["n_attempts"].ge(3),
        ("degraded", "only"): trials["degraded"].astype(bool),
        ("degraded", "without"): ~trials["degraded"].astype(bool),
        ("unscored", "only"): trials["state"].eq("unscored"),
        ("unscored", "without"): trials["state"].eq("scored"),
    }
    for (name, value), mask in wanted.items():
        page.select_option(f"[name={name}]", value)
        settled(page)
        assert count(page) == int(mask.sum()), (name, value)
        page.select_option(f"[name={name}]", "")
    page.fill("[name=from]", "50")
    page.fill("[name=to]", "99")
    settled(page)
    assert count(page) == int(change.between(50, 99).sum())
    assert 0 < count(page) < len(trials)


def test_sorting_is_that_of_the_frame_and_missing_values_are_last(visit, organism_report, trials):
    page = visit(organism_report, "#sort=change&down=1")
    best = trials.set_index("trial")["improvement"]
    shown = best.loc[keys_in_list(page)]
    assert shown.iloc[0] == best.max()
    assert shown.is_monotonic_decreasing
    page.focus(".v-list")
    page.keyboard.press("End")
    assert pd.isna(best.loc[page.get_attribute(".v-row[aria-selected=true]", "data-key")])


def test_full_text_search_finds_what_python_finds(visit, organism_report, trials):
    page = visit(organism_report)
    texts = (trials["prefix"].where(trials["judged_from"].gt(0), "") + trials["text"]).str.lower()
    everything = (
        texts
        + "\n"
        + trials[["prompt", "label", "direction", "condition", "reason"]].agg("\n".join, axis=1).str.lower()
    )
    word = re.findall(r"[a-z]{6,}", texts.iloc[len(texts) // 2])[3]
    phrase = " ".join(re.findall(r"[a-z]+ [a-z]+", texts.iloc[0])[0].split())
    for query, mask in {
        word.upper(): everything.str.contains(word, regex=False),
        f'"{phrase}"': everything.str.contains(phrase, regex=False),
        f"{word} the": everything.str.contains(word, regex=False) & everything.str.contains("the", regex=False),
        "no such words xyzzy": everything.str.contains("xyzzy", regex=False),
    }.items():
        page.fill("[name=q]", query)
        settled(page)
        assert count(page) == int(mask.sum()), query
    expect(page.get_by_text("No trial passes all filters.")).to_be_visible()


def test_a_link_opens_its_trial_with_filters_and_comparison(visit, organism_report, trials):
    row = trials[trials["condition"].eq("incidence") & trials["improved"].astype(bool)].iloc[0]
    link = {"condition": "incidence", "trial": row["trial"], "with": "no-steering"}
    page = visit(organism_report, "#" + urlencode(link))
    left, right = page.locator(".v-pane").all()
    other = trials.query("condition == 'no-steering' and direction == @row.direction").query(
        "prompt_index == @row.prompt_index and seed == @row.seed"
    ).iloc[0]  # fmt: skip
    for pane, trial in ((left, row), (right, other)):
        assert trial["text"].strip()[:40] in pane.inner_text()
        assert trial["prompt"] in pane.inner_text()
    assert count(page) == int(trials["condition"].eq("incidence").sum())
    expect(page.locator("#episodes")).to_be_in_viewport()
    page.click(".v-pane:first-child .v-permalink")
    assert page.evaluate("location.hash") == "#" + urlencode({"trial": row["trial"]})
    expect(right).to_be_hidden()


def test_a_link_to_no_trial_says_so(visit, organism_report):
    page = visit(organism_report, "#trial=nowhere", ready=False)
    expect(page.locator(".v-count")).to_contain_text("not in this report")


def test_attempts_are_bounded_as_the_judge_has_them(visit, organism_report, trials):
    row = trials[trials["n_attempts"].ge(2) & trials["prefix"].eq("") & trials["improved"].astype(bool)].iloc[0]
    page = visit(organism_report, "#trial=" + row["trial"])
    stretches = page.locator(".v-pane:first-child .v-stretch:has(b)")
    assert stretches.count() == len(row["attempts"])
    for i, attempt in enumerate(row["attempts"]):
        words = stretches.nth(i).locator(".v-words").text_content()
        assert words == row["text"][attempt.start : attempt.end]
        head = stretches.nth(i).locator(".v-stretch-head").inner_text()
        assert f"Attempt {i + 1}" in head
        assert f"score {attempt.score:.3g}" in head
        if attempt.kind:
            assert attempt.kind in head
            assert attempt.quote in head
        marked = "".join(stretches.nth(i).locator("mark").all_text_contents())
        assert marked.strip() == attempt.quote


def test_given_text_is_marked(visit, organism_report, trials):
    row = trials[trials["prefix"].str.len().gt(20) & trials["judged_from"].eq(0)].iloc[0]
    page = visit(organism_report, "#trial=" + row["trial"])
    given = "".join(page.locator(".v-pane:first-child .v-words .v-given").all_text_contents())
    assert given == row["prefix"].lstrip()
    unseen = trials[trials["judged_from"].gt(0)].iloc[0]
    page = visit(organism_report, "#trial=" + unseen["trial"])
    assert "the judge did not see them" in page.inner_text(".v-pane:first-child")
    assert page.locator(".v-stretch[aria-label='given, not judged'] .v-words").text_content() == unseen["prefix"]


def test_a_token_is_hovered_and_its_value_read(visit, organism_report, study, episode):
    """The value on the screen is the stored one, to its three digits, and chart and text agree on the place."""
    page = visit(
        organism_report, "#" + urlencode({"trial": episode.trial, "shade": f"l{study.activations.latents[3]}"})
    )
    ends = study.token_ends[episode.trial]
    text = study.trials.set_index("trial").loc[episode.trial, "text"]
    values = episode.values[:, 3].astype(float)
    for token in (int(values.argmax()), episode.restart, 1):
        span = page.locator(f".v-pane:first-child [data-token='{token}']").first
        span.hover()
        said = page.inner_text(".v-said")
        assert f"Token {token + 1} of {len(values)}" in said
        assert text[ends[token - 1] : ends[token]].strip() in said
        assert float(page.inner_text(".v-now")) == pytest.approx(values[token], rel=6e-3, abs=values.max() / 50_000)
        assert "v-here" in span.get_attribute("class")
    box = page.locator(".v-plot").bounding_box()
    page.mouse.move(box["x"] + 46 + (box["width"] - 56) * (episode.restart + 0.5) / len(values), box["y"] + 60)
    assert f"Token {episode.restart + 1} of" in page.inner_text(".v-said")
    assert page.locator(".v-restart-name").text_content() == "restart"
    expect(page.locator(".v-cursor")).to_be_attached()


def test_shading_follows_the_values(visit, organism_report, study, episode):
    page = visit(organism_report, "#" + urlencode({"trial": episode.trial, "shade": "g0"}))
    name, members = next(iter(study.activations.groups.items()))
    columns = [study.activations.latents.index(latent) for latent in members]
    mean = episode.values[:, columns].mean(axis=1)
    assert name in page.inner_text(".v-legend li:first-child")
    share = "node => parseFloat(node.style.getPropertyValue('--v-share'))"
    high, low = int(mean[: episode.end].argmax()), int(mean[: episode.end].argmin())
    shares = [page.locator(f"[data-token='{token}']").first.evaluate(share) for token in (high, low)]
    assert shares[0] > 5 * shares[1] + 5


def test_everything_by_keyboard_alone(visit, organism_report, trials, episode):
    page = visit(organism_report, "#episodes")
    page.evaluate("document.getElementById('episodes').scrollIntoView()")
    page.wait_for_timeout(100)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.type(episode.trial[:12])
    settled(page)
    assert count(page) == 1
    page.keyboard.press("Escape")  # to the list
    page.keyboard.press("Home")
    settled(page)
    assert page.get_attribute(".v-row[aria-selected=true]", "data-key") == episode.trial
    page.keyboard.press("Enter")  # to the trial
    first = page.inner_text(".v-said")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert f"Token {min(episode.restart + 12, len(episode.values))} of" in page.inner_text(".v-said") != first
    page.keyboard.press("]")
    settled(page)
    assert "shade=g1" in page.evaluate("location.hash")
    page.keyboard.press("c")
    settled(page)
    expect(page.locator(".v-pane").nth(1)).to_be_visible()
    compared = page.input_value("[name=with]")
    page.keyboard.press("Escape")
    expect(page.locator(".v-pane").nth(1)).to_be_hidden()
    assert compared in set(trials["condition"]) - {"incidence"}
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.click(".v-clear")
    settled(page)
    page.focus(".v-list")
    page.keyboard.press("Home")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.get_attribute(".v-row[aria-selected=true]", "aria-posinset") == "2"
    page.focus("[role=slider]") if page.locator("[role=slider]").count() else None


def test_the_slider_has_its_own_keys_and_says_where_it_is(visit, organism_report, episode):
    page = visit(organism_report, "#trial=" + episode.trial)
    page.focus("[role=slider]")
    for key, token in {"Home": 1, "PageUp": 11, "ArrowDown": 10, "End": len(episode.values)}.items():
        page.keyboard.press(key)
        assert page.get_attribute("[role=slider]", "aria-valuenow") == str(token), key
    assert "token" in page.get_attribute("[role=slider]", "aria-valuetext")


def test_single_keys_can_be_switched_off(visit, organism_report):
    page = visit(organism_report, "#sort=study")
    page.focus(".v-list")
    page.keyboard.press("Home")
    page.keyboard.press("?")
    page.uncheck("[name=single]")
    page.keyboard.press("Escape")
    page.focus(".v-list")
    page.keyboard.press("j")
    assert page.get_attribute(".v-row[aria-selected=true]", "aria-posinset") == "1"


def test_on_a_narrow_screen_list_and_trial_take_turns(visit, organism_report, trials):
    page = visit(organism_report, width=NARROW)
    expect(page.locator(".v-view")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    page.locator(".v-row").nth(1).click()
    expect(page.locator(".v-view")).to_be_visible()
    expect(page.locator(".v-list")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    page.get_by_role("button", name="All trials").click()
    expect(page.locator(".v-list")).to_be_visible()
    expect(page.locator(".v-row[aria-selected=true]")).to_be_in_viewport()


def test_without_scripts_ten_episodes_are_shown(launch, organism_report):
    with launch("--blink-settings=scriptEnabled=false") as browser:  # the driver's own switch leaves <noscript> unread
        page = browser.new_page()
        page.goto(organism_report.as_uri())
        articles = page.locator("noscript article")
        assert articles.count() == 10
        assert all(article.bounding_box()["height"] > 50 for article in articles.all())


def test_charts_side_by_side_have_one_scale(visit, organism_report, episode):
    page = visit(organism_report, "#" + urlencode({"trial": episode.trial, "with": "no-steering"}))
    settled(page)
    ticks = [pane.locator(".v-tick").all_text_contents()[:3] for pane in page.locator(".v-pane").all()]
    assert ticks[0] == ticks[1]
    assert float(ticks[0][2]) > 0
