import matplotlib as mpl
import numpy as np
import pytest
from activation_readings import LATENTS, activations, random_readings
from matplotlib.text import Text

from esr.analysis.activation_courses import normalised_course, token_course
from esr.analysis.activation_regions import region_table
from esr.analysis.activations import KINDS, REGIONS, Activations
from esr.errors import UserError
from esr.reporting import activation_figures as drawn
from esr.reporting.figures import DARK, LIGHT, NARROW, WIDE, png

DRAWS = 50


@pytest.fixture(scope="module")
def table():
    return region_table(activations(random_readings()), draws=DRAWS)


@pytest.fixture(scope="module")
def course():
    return token_course(activations(random_readings()), window=6, draws=DRAWS)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_region_means_draw_the_tables_numbers(table):
    figure = drawn.region_means(table)
    for axis, group in zip(figure.axes, ("detectors", "backtracking"), strict=True):
        rows = table[table["unit"].eq("group") & table["name"].eq(group) & table["region"].isin(REGIONS)]
        assert axis.get_title(loc="left") == group
        dots = [line for line in axis.lines if len(line.get_xdata()) == 1]
        np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], rows["mean"])
        ends = [collection.get_segments()[0][:, 0] for collection in axis.collections]
        np.testing.assert_allclose(ends, rows[["low", "high"]])
        colours = {kind: LIGHT.series[i] for i, kind in enumerate(KINDS)}
        assert [dot.get_color() for dot in dots] == [colours[kind] for kind in rows["kind"]]
        baseline = next(line for line in axis.lines if line.get_linestyle() == "--")
        assert baseline.get_xdata()[0] == rows["baseline"].iloc[0]
        heights = [dot.get_ydata()[0] for dot in dots]
        assert [round(y) for y in heights] == [REGIONS.index(region) for region in rows["region"]]
    assert texts(figure).count("n = 28") == 2 * len(REGIONS) * len(KINDS)


def test_time_courses_draw_means_bands_and_counts(course):
    figure = drawn.time_courses(course)
    *panels, counts = figure.axes
    for axis, group in zip(panels, ("detectors", "backtracking"), strict=True):
        for i, kind in enumerate(KINDS):
            rows = course[course["group"].eq(group) & course["kind"].eq(kind)]
            np.testing.assert_allclose(axis.lines[i].get_xdata(), (rows["start"] + rows["stop"]) / 2)
            np.testing.assert_allclose(axis.lines[i].get_ydata(), rows["mean"])
            corners = axis.collections[i].get_datalim(axis.transData).intervaly
            np.testing.assert_allclose(corners, [rows["low"].min(), rows["high"].max()])
        assert list(axis.lines[-1].get_xdata()) == [0, 0]  # the restart
    for i, kind in enumerate(KINDS):
        rows = course[course["group"].eq("detectors") & course["kind"].eq(kind)]
        np.testing.assert_allclose(counts.patches[i].get_data().values, rows["n"])
        assert f"{drawn.KIND_TITLES[kind]} (n = {rows['n'].max()})" in texts(figure)


def test_the_restart_stands_at_one_of_two_when_normalised():
    figure = drawn.time_courses(normalised_course(activations(random_readings()), draws=DRAWS))
    assert all(list(axis.lines[-1].get_xdata()) == [1, 1] for axis in figure.axes[:-1])
    assert "restart" in texts(figure)


@pytest.mark.parametrize(("theme", "width"), [(LIGHT, WIDE), (DARK, NARROW)])
def test_what_was_not_read_or_never_active_is_drawn_as_nothing(theme, width, hostile):
    """Warnings are errors here: no empty axis limits, no missing glyph; and nothing is read as mathtext."""
    readings = random_readings(directions=3, kinds=("episode",))
    for reading in readings:
        reading.values[:, 0] = 0
    groups = {hostile[6]: LATENTS[:1], hostile[9]: LATENTS[1:]}
    made = Activations(readings, LATENTS, groups)
    figure = drawn.region_means(region_table(made, draws=DRAWS), theme=theme, width=width)
    assert "n = 0" in texts(figure)
    assert figure.get_figwidth() == width
    for each in (figure, drawn.time_courses(token_course(made, draws=DRAWS), theme=theme, width=width)):
        assert png(each, 40).startswith(b"\x89PNG")


def test_everything_stands_inside_the_figure(table, course):
    for width in (WIDE, NARROW):
        for figure in (drawn.region_means(table, width=width), drawn.time_courses(course, width=width)):
            png(figure, 100)
            box = figure.get_tightbbox()  # in inches
            assert box.x0 >= 0
            assert box.x1 <= width + 0.01


def test_figures_of_no_group_are_refused(table, course):
    with pytest.raises(UserError, match="at least one group"):
        drawn.region_means(table[table["unit"].eq("latent")])
    with pytest.raises(UserError, match="at least one group"):
        drawn.time_courses(course.head(0))


def test_the_same_frame_gives_the_same_bytes_and_leaves_no_state(table, course):
    before = dict(mpl.rcParams)
    assert png(drawn.region_means(table), 60) == png(drawn.region_means(table), 60)
    with mpl.rc_context({"text.usetex": True, "font.size": 40}):
        png(drawn.time_courses(course), 60)  # a user's settings do not reach the figure
    assert dict(mpl.rcParams) == before
