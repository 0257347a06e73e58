import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from esr.analysis.metrics import summarise
from esr.errors import UserError
from esr.reporting import figures


@pytest.fixture
def view(make_view):
    return make_view()


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_rates_show_value_counts_and_reason(view):
    summary = summarise(view.trials, draws=100)
    figure = figures.rates(summary)
    shown = texts(figure)
    row = summary.set_index("condition").loc["incidence"]
    assert f"{100 * row['esr_rate']:.1f} %\u2003{row['esr_rate_numerator']} of {row['esr_rate_denominator']}" in shown
    assert "undefined: no multi-attempt responses" in shown
    lines = [c.get_segments() for axis in figure.axes for c in axis.collections]
    low, high = row["multi_attempt_rate_low"], row["multi_attempt_rate_high"]
    assert any(np.allclose(segments[0][:, 0], [low, high]) for segments in lines)


def test_first_last_draws_every_multi_attempt_response(view):
    figure = figures.first_last(view.trials)
    spots = figure.axes[1].collections
    multi = view.trials[view.trials["multi_attempt"]]
    assert sum(s.get_sizes()[0] * len(s.get_offsets()) for s in spots) == pytest.approx(18 * len(multi))
    drawn = [tuple(point) for same in spots for point in same.get_offsets()]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == set(zip(multi["first_score"], multi["last_score"], strict=True))
    scored = view.trials[(view.trials["state"] == "scored") & (view.trials["condition"] == "incidence")]
    assert f"incidence: n = {len(scored)}, {multi['improved'].sum()} of {len(multi)} improved" in texts(figure)


def test_first_last_without_restarts_says_so(view):
    figure = figures.first_last(view.trials[view.trials["condition"] == "no-steering"])
    assert "no multi-attempt responses" in texts(figure)


def test_first_last_says_how_many_conditions_it_left_out(view):
    plain = view.trials[view.trials["condition"] == "no-steering"]
    many = pd.concat([view.trials] + [plain.assign(condition=f"c{i}") for i in range(4)])
    assert "2 more conditions not drawn" in texts(figures.first_last(many))


def test_thresholds_are_sorted_and_the_uncalibrated_stand_below(view):
    shuffled = view.calibration.sample(frac=1, random_state=0)
    figure = figures.thresholds(shuffled, 30)
    left, right = figure.axes
    found, failed = left.lines[:2]
    assert list(found.get_xdata()) == sorted(view.calibration["threshold"].dropna())
    assert list(found.get_ydata()) == list(range(12))
    assert list(failed.get_ydata()) == [12, 13]
    assert np.allclose(right.lines[0].get_xdata(), 33)
    assert {"calibrated (n = 12)", "uncalibrated (n = 2)"} <= set(texts(figure))


def test_many_directions_lose_their_names_not_their_marks(view):
    many = pd.concat([view.calibration] * 20, ignore_index=True)
    figure = figures.thresholds(many, 30)
    assert len(figure.axes[0].lines[0].get_xdata()) == 240
    assert "directions, by threshold" in texts(figure)


def test_thresholds_of_nothing_are_refused(view):
    with pytest.raises(UserError, match="at least one direction"):
        figures.thresholds(view.calibration.head(0), 30)


def test_all_uncalibrated(view):
    figures.png(figures.thresholds(view.calibration.tail(2), 30), 50)


@pytest.mark.parametrize(("theme", "width"), [(figures.LIGHT, figures.WIDE), (figures.DARK, figures.NARROW)])
def test_hostile_text_is_drawn_as_text(make_view, hostile, theme, width):
    """Warnings are errors here: no missing glyph, no collapsed layout; and nothing is read as mathtext."""
    view = make_view(hostile)
    summary = summarise(view.trials, draws=50)
    names = [f"{h[:60]} {i}" for i, h in enumerate(hostile)]
    summary = pd.concat([summary.head(1)] * len(names), ignore_index=True)
    summary["condition"] = pd.Series(names, dtype=object)
    for figure in (
        figures.rates(summary, theme=theme, width=width),
        figures.first_last(view.trials, theme=theme, width=width),
        figures.thresholds(view.calibration, 30, theme=theme, width=width),
    ):
        assert figures.png(figure, 60).startswith(b"\x89PNG")


def test_an_svg_is_itself_again_with_plain_fonts_and_nothing_foreign(view):
    summary = summarise(view.trials, draws=50)
    page = figures.svg(figures.rates(summary))
    assert page == figures.svg(figures.rates(summary))
    assert "DejaVu Sans',Verdana,Arial,sans-serif!important" in page
    assert ">incidence</text>" in page
    assert not re.search(r"<(script|image|foreignObject)|https?://(?!www\.w3\.org|purl\.org)", page)


def test_a_themed_svg_is_the_one_drawn_in_either_theme(view):
    summary = summarise(view.trials, draws=50)
    summary["condition"] = pd.Series(["#0072b2 #ffffff", "other"], dtype=object)
    for draw, data in ((figures.rates, summary), (figures.first_last, view.trials)):
        light, dark = (figures.svg(draw(data, theme=theme)) for theme in (figures.LIGHT, figures.DARK))
        page = figures.themed(light)
        sheet = re.search(r"svg{(.*?)}@media screen and \(prefers-color-scheme:dark\){svg{(.*?)}}", page)
        plain = page.replace(sheet[0], "", 1)
        assert "var(" not in plain.replace("var(--c", "")
        for colours, drawn in zip(sheet.groups(), (light, dark), strict=True):
            values = dict(pair.split(":") for pair in colours.split(";"))
            shown = re.sub(r"var\((--c\d+)\)", lambda name, values=values: values[name[1]], plain)
            assert sorted(_without_ids(shown)) == sorted(_without_ids(drawn))
        assert (">#0072b2 #ffffff</text>" in page) == (data is summary)  # a text that looks like a colour stays
    assert all(len(set(colours)) == len(colours) for colours in map(figures._colours, (figures.LIGHT, figures.DARK)))


def test_pdf_and_png_are_the_same_bytes_again(view):
    for form, start in ((figures.pdf, b"%PDF"), (figures.png, b"\x89PNG")):
        first, second = (form(figures.thresholds(view.calibration, 30)) for _ in range(2))
        assert first == second
        assert first.startswith(start)


def _without_ids(page):
    """Lines without the names that matplotlib makes of an artist's look."""
    return [re.sub(r"(#|id=\"|url\(#)[mpC][0-9a-f_]{8,}", "", line) for line in page.splitlines()]


def test_coinciding_responses_do_not_cover_the_figure(view):
    trials = view.trials[view.trials["condition"] == "incidence"].assign(first_score=0.0, last_score=100.0)
    many = pd.concat([trials.assign(trial=f"{k}" + trials["trial"]) for k in range(20)])
    sizes = figures.first_last(many).axes[1].collections[0].get_sizes()
    assert sizes.max() == pytest.approx(600)


def test_label_is_one_plain_line():
    assert figures.label("$x^2$ a\nb", 40) == r"\$x^2\$ a\nb"
    assert figures.label("漢字\u202e", 40) == "□□\\u202e"
    assert figures.label("x" * 100, 10) == "x" * 9 + "…"
    text = Text(text=figures.label(r"$\frac{", 40))
    assert text._preprocess_math(text.get_text()) == (r"$\frac{", False)


def test_the_same_frame_gives_the_same_bytes(view):
    summary = summarise(view.trials, draws=50)
    assert figures.png(figures.rates(summary), 60) == figures.png(figures.rates(summary), 60)
    shuffled = view.trials.sample(frac=1, random_state=0)
    assert figures.png(figures.first_last(view.trials), 60) == figures.png(figures.first_last(shuffled), 60)


def test_no_global_state_is_used_or_left(view):
    before = dict(mpl.rcParams)
    with mpl.rc_context({"text.usetex": True, "font.size": 40}):
        figures.png(figures.first_last(view.trials), 60)  # a user's settings do not reach the figure
    assert dict(mpl.rcParams) == before
    code = "import sys, esr.reporting.report; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
