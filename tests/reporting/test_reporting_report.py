import dataclasses
import functools
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from esr.analysis.metrics import summarise
from esr.analysis.recovery import recoveries
from esr.errors import UserError
from esr.reporting import report
from esr.reporting.report import flat, render_report, report_html
from esr.reporting.view import ExperimentView, StudyView
from esr.subjects.published_figures import PublishedFigure

VOID = {"meta", "img", "source", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Every tag, attribute and piece of text; raises when tags are not closed in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.comments = 0
        self.scripts = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "script":
            self.scripts.append(dict(attrs).get("type"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_comment(self, data):
        self.comments += 1

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures and intervals have their own tests; most of the page's need none, or rough ones."""
    monkeypatch.setattr(report, "summarise", functools.partial(summarise, draws=100))
    uris = ["data:image/svg+xml;base64,AA=="] * 2
    monkeypatch.setattr(report, "_picture", lambda drawing: report.Picture(*uris, drawing.caption))


@pytest.fixture(scope="module")
def whole(make_view):
    """A page with its figures."""
    return report_html(make_view(("some words",), title="A study of ours"))


def test_the_page_holds_every_part(whole):
    page = Page(whole)
    for part in (
        "A study of ours",
        "no evidence about large language models",
        "Results per condition",
        "Paired comparison",
        "incidence − no-steering",
        "12 of 14 directions were calibrated",
        "2 could not be and were not used",
        "How the directions were chosen",
        "sampling.temperature 0.6",
        "ab" * 32,
        "1 min 15 s",
        "not steered; partner of",
        "Attempt 2",
        "began anew: disowning",
        "takes every direction as one trial",
    ):
        assert part in page.words, part
    assert page.tags.count("article") == 10 + 2  # without scripts ten episodes; the viewer shows one or two
    assert page.tags.count("img") == 5
    assert page.tags.count("mark") > 10


def test_every_experiment_has_its_section(whole_view, no_pictures):
    view = whole_view()
    html = report_html(view)
    page = Page(html)
    anchors = [v for t, n, v in page.attributes if t == "section" and n == "id"]
    shown = [e for e in view.experiments if e.key not in ("incidence", "no-steering")]
    assert anchors == [
        "results", "paired", *(f"experiment-{i + 1}" for i in range(len(shown))), "episodes", "judges", "calibration",
        "directions", "provenance",
    ]  # fmt: skip
    for experiment in shown:
        assert f">{experiment.key}</a></li>" in html  # in the navigation
        assert experiment.question in page.words
    for part in (
        "Each is compared with incidence.",
        "incidence control, from above",
        "Compared: plain words arm with alone.",
        "plain words x0 − incidence",
        "2 latents chosen of 1,234 alive",
        "0.612 to 0.987",
        "How well the 2 random sets match the detectors",
        "Mean activation of each latent",
        "Dose and response",
        "Agreement of the judges, pair by pair",
    ):
        assert part in page.words, part


def test_the_kinds_of_recovery_are_kept_apart(make_view, no_pictures):
    view = make_view()
    table = recoveries(view.trials, seed=view.seed).set_index(["condition", "kind"])
    html = report_html(view)
    words = Page(html.partition('aria-label="Kinds of recovery">')[2].partition("</div>")[0]).words
    for kind in ("explicit", "pivot", "gradual"):
        row = table.loc[("incidence", kind)]
        assert f"{row['events']} of {row['counted']}" in words
    assert "thirds not judged" not in words
    without = dataclasses.replace(view, trials=view.trials.assign(segments=[[] for _ in range(len(view.trials))]))
    assert report_html(without).count("thirds not judged") == 2


def test_judges_with_what_they_used_and_never_a_price_for_rules(make_view, no_pictures):
    words = Page(report_html(make_view()).partition('<section id="judges">')[2].partition("</section>")[0]).words
    assert "rule the rates are by this judge 80 4 rules, no calls" in words
    assert "plain words 70 6 1,234 34 uncounted 2,500,000 500,000 cached 70,000 4.20" in words
    assert "other 9 0 not stored not stored not stored" in words


def test_each_condition_of_the_headline_and_of_an_experiment_is_shown_with_its_counts(whole_view, no_pictures):
    view = whole_view()
    sections = dict(re.findall(r'<section id="([^"]+)">(.*?)</section>', report_html(view), flags=re.S))
    summary = summarise(view.trials, seed=view.seed).set_index("condition")
    for name, where in {"incidence": "results", "plain words x1": "experiment-1", "alone": "experiment-2"}.items():
        row = summary.loc[name]
        table = Page(sections[where].partition("</table>")[0] + "</table></div>").words
        counts = f"{row['n_directions']} directions"
        for part in (name, f"{100 * row['esr_rate']:.1f} %", f"{row['n_trials']} trials", counts):
            assert part in table, part
        assert f"{row['n_unscored']} unscored" in table
        assert f"{row['n_degraded']} degraded" in table
    assert "x1" not in Page(sections["results"]).words.partition("degraded responses")[0]


def test_published_figures_stand_with_their_experiment(whole_view, no_pictures):
    published = tuple(
        PublishedFigure(condition, "ESR rate", value, "arXiv 2602.06941 v1")
        for condition, value in {"incidence": "3.8 %", "boost-sweep": "1.0 %", "vectors": "3.6 %"}.items()
    )
    html = report_html(whole_view(is_organism=False, published=published))
    sections = dict(re.findall(r'<section id="([^"]+)">(.*?)</section>', html, flags=re.S))
    where = {value: {k for k, text in sections.items() if f">{value}</td>" in text} for value in ("3.8 %", "1.0 %")}
    assert where == {"3.8 %": {"results"}, "1.0 %": {"experiment-1"}}
    assert "3.6 %" not in html  # of an experiment that this study has not run


def test_the_checks_of_each_direction_are_columns(make_view, no_pictures):
    html = report_html(make_view())
    words = Page(html).words
    assert "Checks of the 14 directions" in words
    assert words.count("promotes restarts") == 2  # in both tables
    assert words.count("not tried") == 2
    low, high, threshold = 1.5, 3.0, 2.0
    assert f"{100 * (high - low) / threshold:.0f} %" in words


def test_without_incidence_and_no_steering_the_experiments_stand_alone(whole_view, no_pictures):
    view = whole_view()
    trials = view.trials[~view.trials["condition"].isin(["incidence", "no-steering"])]
    experiments = tuple(
        dataclasses.replace(e, comparisons=pd.DataFrame()) for e in view.experiments if e.key == "boost-sweep"
    )
    some = trials[trials["condition"].isin(list(experiments[0].controls))]
    words = Page(report_html(dataclasses.replace(view, trials=some, experiments=experiments))).words
    assert "Neither incidence nor no-steering was measured" in words
    assert "Not compared, for it has not been measured: incidence." in words
    assert "Paired comparison" not in words


def test_an_experiment_without_trials_or_result_is_left_out(make_view, no_pictures):
    begun = (ExperimentView("prefill", "Text?", "forest", {"prefill 1": "incidence"}),)
    assert "prefill" not in report_html(make_view(experiments=begun))


def test_the_page_needs_nothing_else(whole):
    page = Page(whole)
    policy = next(v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    executed = [kind for kind in page.scripts if kind is None]
    assert len(executed) == 1
    assert set(page.scripts) == {None, "application/octet-stream"}
    loaded = [v for t, n, v in page.attributes if n in ("src", "srcset")]
    assert len(loaded) == 10  # two widths of five figures
    assert all(v.startswith("data:image/svg+xml;base64,") for v in loaded)
    assert all(v.startswith("#") for t, n, v in page.attributes if n == "href")
    assert not re.search(r"url\(|@import|https?:", whole.replace('"http://www.w3.org/2000/svg"', ""))
    ids = [v for t, n, v in page.attributes if n == "id"]
    assert {v[1:] for t, n, v in page.attributes if n == "href"} <= set(ids)


def test_no_foreign_tag_or_attribute_gets_in(whole_view, hostile, no_pictures):
    published = tuple(
        PublishedFigure(f"{key}: {word}", word, word, word) for word in hostile for key in ("incidence", "boost-sweep")
    )
    views = [whole_view(words, is_organism=False, published=published) for words in [hostile, *zip(hostile)]]
    tame = Page(report_html(whole_view(is_organism=False, published=published[:2])))
    tags, attributes = set(tame.tags), {(t, n) for t, n, _ in tame.attributes}
    for view in views:
        page = Page(report_html(view))
        assert set(page.tags) <= tags
        assert {(t, n) for t, n, _ in page.attributes} <= attributes
        assert page.comments == 0
        assert page.tags.count("style") == 2
        assert not [v for t, n, v in page.attributes if n == "style"]
        classes = {v for t, n, v in page.attributes if n == "class"}
        assert all(re.fullmatch(r"[a-z \-]+", value) for value in classes)


def test_hostile_characters_are_shown_as_escapes(whole_view, hostile, no_pictures, tmp_path):
    render_report(whole_view(hostile), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_bytes().decode("utf-8")
    assert not set(text) & set("\x00\x07\x1b\x7f\x85\x9b\r\u202e\u202c\u2066\u2069\u200b\u2028\ufeff\U000e0041")
    words = Page(text).words
    for shown in ("\\x1b[31mred", "\\u202eto", "\\ud800", "\\x00", "{{ 7 * 7 }}"):
        assert shown in words, shown
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert len(shown) < 1_000_000  # a 1 MB line is cut in every place but the viewer's data


def test_a_condition_may_be_hostile_too(make_view, no_pictures):
    name = '"><script>alert(1)</script>\u202e'
    view = make_view()
    trials = view.trials.assign(condition=view.trials["condition"].replace("incidence", name))
    page = Page(report_html(dataclasses.replace(view, trials=trials)))
    assert page.scripts.count(None) == 1
    assert '"><script>alert(1)</script>\\u202e − no-steering' in page.words


def test_a_study_of_one_condition_without_calibration(make_view, no_pictures):
    view = make_view()
    alone = dataclasses.replace(
        view,
        trials=view.trials[view.trials["condition"] == "incidence"],
        calibration=view.calibration.head(0),
        exclusions=view.exclusions.head(0),
        stages=view.stages.head(0),
    )
    words = Page(report_html(alone)).words
    assert "Paired comparison" not in words
    assert "No direction was calibrated" in words
    assert "No exclusions were recorded" in words


def test_all_unscored(make_view, no_pictures):
    view = make_view()
    trials = view.trials.assign(
        state="unscored", multi_attempt=False, improved=False, reason="timeout",
        **{name: float("nan") for name in ("first_score", "last_score", "improvement", "n_attempts")},
    )  # fmt: skip
    trials["attempts"] = [[] for _ in range(len(trials))]
    words = Page(report_html(dataclasses.replace(view, trials=trials))).words
    assert "no scored responses, so no" in words
    assert "No scored responses" in words


def test_the_same_view_gives_the_same_page_in_any_row_order(make_view, no_pictures):
    view = make_view()
    shuffled = dataclasses.replace(view, trials=view.trials.sample(frac=1, random_state=1))
    assert report_html(view) == report_html(shuffled)


def test_the_caveat_is_for_organisms_and_published_figures_are_not(make_view, no_pictures):
    published = (PublishedFigure("incidence", "ESR rate", "3.8 %", "arXiv 2602.06941 v1"),)
    words = Page(report_html(make_view(is_organism=False, published=published))).words
    assert "Read this first" not in words
    assert "arXiv 2602.06941 v1" in words
    with pytest.raises(UserError, match="published figures belong to the published subjects"):
        make_view(published=published)


def test_a_frame_without_its_columns_is_refused(make_view):
    with pytest.raises(UserError, match=r"stages frame has its columns.*no tokens"):
        make_view(stages=pd.DataFrame({"stage": [], "seconds": []}))


def test_an_unwritable_place_is_a_clear_error_and_leaves_nothing(make_view, no_pictures, tmp_path):
    with pytest.raises(UserError, match=r"report can be written.*Choose another folder"):
        render_report(make_view(), tmp_path / "absent" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="report can be written"):
        render_report(make_view(), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_writing_again_replaces(make_view, no_pictures, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    render_report(make_view(), path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_settings_become_dotted_names():
    nested = {"a": {"b": {"c": 1}, "d": [1, "x"]}, "e": "text"}
    assert list(flat(nested)) == [("a.b.c", "1"), ("a.d", "1, x"), ("e", "text")]


def test_the_view_is_frozen(make_view):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_view().title = "other"
    assert dataclasses.is_dataclass(StudyView)


def test_why_a_search_stopped_and_what_was_predicted_are_shown_where_they_are_known(make_view, no_pictures):
    view = make_view()
    assert "predicted" not in Page(report_html(view)).words
    known = view.calibration.assign(
        stopped=["narrow <b>"] * 14, surrogate=[None, 4.5, *[float("nan")] * 12], status=view.calibration["status"]
    )
    words = Page(report_html(dataclasses.replace(view, calibration=known))).words
    assert words.count("narrow <b>") == 12  # of the calibrated
    assert words.count("predicted 4.5") == 1
    assert "predicted n" not in words


def test_the_report_names_the_method_and_flags_intervals_that_end_at_a_bound(make_view, no_pictures):
    view = make_view()
    known = view.calibration.assign(at_bound=["upper", *[""] * 13])
    for method, other in (("pooled", "bisection"), ("bisection", "pooled")):
        words = Page(report_html(dataclasses.replace(view, calibration=known, method=method))).words
        assert f"found by the method {method}" in words
        assert f"the method {other}" not in words
        assert words.count("ends at the upper bound") == 1
        assert "95 % credible intervals" in words
        for term in ("narrow, the mean", "rounds spent, all", "out of reach, the threshold", "Predicted: the boost"):
            assert term in words
