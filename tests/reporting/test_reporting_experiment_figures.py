import numpy as np
import pandas as pd
import pytest
from made_results import discovery
from matplotlib.text import Text

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_pairs
from esr.errors import UserError
from esr.reporting import experiment_figures, figures


@pytest.fixture(scope="module")
def summary(make_view):
    return summarise(make_view().trials, draws=100)


@pytest.fixture(scope="module")
def compared(make_view):
    return compare_pairs(make_view().trials, [("incidence", "no-steering")], draws=100)


@pytest.fixture
def points(summary):
    swept = [summary.iloc[[0]].assign(condition=f"x{x}", by=by, x=x) for by in ("factor", "level") for x in (2.0, 0.5)]
    return pd.concat(swept, ignore_index=True)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def marks(axis):
    points = [line.get_xydata() for line in axis.lines]
    return [tuple(map(float, xy[0])) for xy in points if len(xy) == 1]


def spans(axis):
    return [tuple(part[:, 0]) for lines in axis.collections for part in lines.get_segments()]


def test_a_forest_draws_values_intervals_controls_and_differences(summary, compared):
    figure = experiment_figures.forest(summary, compared)
    rates, differences = figure.axes
    by_condition = summary.set_index("condition")
    row, table = by_condition.loc["incidence"], compared.set_index("statistic")
    assert (row["multi_attempt_rate"], 0.0) in marks(rates)
    assert (row["esr_rate"], 0.25) in marks(rates)
    assert (by_condition.loc["no-steering", "esr_rate"], 1.25) in marks(rates)
    assert (row["esr_rate_low"], row["esr_rate_high"]) in spans(rates)
    control = table.loc["esr_rate", "value_control"]
    assert (control, control) in spans(rates)
    assert marks(differences) == [
        (table.loc["multi_attempt_rate", "difference"], 0.0),
        (table.loc["esr_rate", "difference"], 0.25),
    ]
    assert (table.loc["esr_rate", "difference_low"], table.loc["esr_rate", "difference_high"]) in spans(differences)
    assert rates.get_xlim()[1] >= table["value_control"].loc[["esr_rate", "multi_attempt_rate"]].max()
    shown = texts(figure)
    assert f"n = {row['n_scored']}" in shown
    unscored, degraded = summary["n_unscored"].sum(), summary["n_degraded"].sum()
    assert any(f"{unscored} of {summary['n_trials'].sum()} unscored, {degraded} degraded" in text for text in shown)


def test_a_forest_without_controls_has_one_panel(summary):
    assert len(experiment_figures.forest(summary, pd.DataFrame()).axes) == 1
    with pytest.raises(UserError, match="at least one"):
        experiment_figures.forest(summary.head(0), pd.DataFrame())


def test_a_condition_without_scores_is_named_and_has_no_mark(summary, make_view):
    trials = make_view().trials
    trials = trials[trials["condition"].eq("incidence")].assign(
        state="unscored", multi_attempt=False, improved=False, improvement=np.nan, first_score=np.nan
    )
    figure = experiment_figures.forest(summarise(trials, draws=20), pd.DataFrame())
    assert "no scored responses" in texts(figure)
    assert marks(figure.axes[0]) == []


def test_a_sweep_draws_each_boost_in_its_own_column(points):
    figure = experiment_figures.sweep(points)
    assert len(figure.axes) == 6
    top = figure.axes[0]
    line = next(line for line in top.lines if line.get_linestyle() == "-")
    assert list(line.get_xdata()) == [0.5, 2.0]
    assert list(line.get_ydata()) == [points["multi_attempt_rate"].iloc[0]] * 2
    score = figure.axes[4]
    assert set(score.lines[0].get_ydata()) == {points["mean_first_score"].iloc[0]}
    assert texts(figure).count(str(points["improvement_rate_denominator"].iloc[0])) == 4
    assert len(experiment_figures.sweep(points[points["by"].eq("level")]).axes) == 3
    with pytest.raises(UserError, match="at least one boost"):
        experiment_figures.sweep(points.head(0))


def test_few_responses_are_drawn_but_not_joined(points):
    points.loc[points["by"].eq("factor"), "improvement_rate_denominator"] = experiment_figures.JOINED - 1
    figure = experiment_figures.sweep(points)
    alone, joined = figure.axes[2], figure.axes[3]
    assert list(alone.lines[0].get_ydata()) == [points["improvement_rate"].iloc[0]] * 2
    assert all(np.isnan(line.get_ydata()).all() for line in alone.lines[1:])
    assert not np.isnan(joined.lines[1].get_ydata()).any()


def test_an_undefined_rate_leaves_a_gap(points):
    points.loc[0, ["improvement_rate", "improvement_rate_low", "improvement_rate_high"]] = np.nan
    points.loc[0, "improvement_rate_denominator"] = 0
    figure = experiment_figures.sweep(points)
    assert "0" in texts(figure)
    figures.png(figure, 50)


def test_detectors_draw_auc_d_and_rates(points):
    table = pd.DataFrame(discovery(("some label",))["table"])
    figure = experiment_figures.detectors(table)
    auc, effect, active = figure.axes
    assert [x for x, _ in marks(auc)] == list(table["auc"])
    assert spans(auc)[0] == (0.612, 0.987)
    assert [x for x, _ in marks(effect)][:2] == [1.234, 1.234]
    assert {x for x, _ in marks(active)} == {0.125, 0.875}
    filled = [line.get_markerfacecolor() for line in auc.lines if len(line.get_xdata()) == 1]
    assert filled == [figures.LIGHT.series[0]] * 2 + [figures.LIGHT.background]
    assert "40 some label" in texts(figure)


def test_many_latents_are_cut_and_it_is_said():
    table = pd.DataFrame(discovery(("label",), latents=33)["table"])
    shown = texts(experiment_figures.detectors(table))
    assert f"{33 - experiment_figures.DETECTORS} more not drawn" in shown
    assert f"{40 + experiment_figures.DETECTORS} label" not in shown
    with pytest.raises(UserError, match="at least one latent"):
        experiment_figures.detectors(table.head(0))


@pytest.mark.parametrize(("theme", "width"), [(figures.LIGHT, figures.WIDE), (figures.DARK, figures.NARROW)])
def test_hostile_text_is_drawn_as_text(summary, hostile, theme, width):
    """Warnings are errors here: no missing glyph, no collapsed layout; and nothing is read as mathtext."""
    names = [f"{word[:60]} {i}" for i, word in enumerate(hostile)]
    many = pd.concat([summary.head(1)] * len(names), ignore_index=True)
    many["condition"] = pd.Series(names, dtype=object)
    with pd.option_context("future.infer_string", False):
        table = pd.DataFrame(discovery(hostile, latents=len(hostile))["table"])
    for figure in (
        experiment_figures.forest(many, pd.DataFrame(), theme=theme, width=width),
        experiment_figures.detectors(table, theme=theme, width=width),
    ):
        assert figures.png(figure, 60).startswith(b"\x89PNG")
        page = figures.svg(figure)
        assert "<script" not in page
        assert not set(page) & set("\x1b\x00\u202e\ufeff")


def test_the_same_frame_gives_the_same_figure(summary, compared, points):
    for draw in (lambda: experiment_figures.forest(summary, compared), lambda: experiment_figures.sweep(points)):
        assert figures.svg(draw()) == figures.svg(draw())


def test_a_sweep_without_any_restart_keeps_its_layout(points):
    """pytest makes the layout's warning an error."""
    undefined = {name: float("nan") for name in points if name.startswith("improvement_rate") and "note" not in name}
    undefined |= {"improvement_rate_denominator": 0, "improvement_rate_interval_method": "undefined"}
    figures.png(experiment_figures.sweep(points.assign(**undefined)))
