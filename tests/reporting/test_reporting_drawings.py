import csv
import dataclasses
import io
import re

import matplotlib as mpl
import pandas as pd
import pytest

from esr.errors import UserError
from esr.reporting import drawings, report
from esr.reporting.drawings import all_drawings, csv_text, write_figures
from esr.reporting.experiments import safe_name
from esr.reporting.figures import WIDE


@pytest.fixture
def quick(monkeypatch):
    """Fewer draws of intervals: what is drawn has its own tests."""
    plain = drawings.summarise
    monkeypatch.setattr(drawings, "summarise", lambda trials, seed: plain(trials, seed=seed, draws=50))


def test_the_files_are_the_pages_figures_each_with_its_numbers(whole_view, quick, monkeypatch, tmp_path):
    view = whole_view()
    on_the_page = []
    monkeypatch.setattr(report, "summarise", drawings.summarise)
    monkeypatch.setattr(report, "_picture", lambda d: on_the_page.append(d.name) or report.Picture("data:,", "data:,"))
    report.report_html(view)
    found = all_drawings(view)
    assert sorted(on_the_page) == sorted(d.name for d in found)
    simple = [d for d in found if d.name in ("rates", "calibration-quality", "judge-agreement", "boost-sweep")]
    monkeypatch.setattr(drawings, "all_drawings", lambda view: simple)
    written = write_figures(view, tmp_path / "new" / "figures", ["png", "svg", "pdf", "svg"])
    names = {path.name for path in written}
    assert names == {f"{d.name}.{end}" for d in simple for end in ("png", "svg", "pdf", "csv")}
    assert names == {path.name for path in (tmp_path / "new" / "figures").iterdir()}
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path in written:
        assert path.read_bytes().startswith(starts.get(path.suffix, b""))
    rates = pd.read_csv(tmp_path / "new" / "figures" / "rates.csv").set_index("condition")
    frame = next(d for d in simple if d.name == "rates").numbers[""].set_index("condition")
    assert rates.loc["incidence", "esr_rate_low"] == frame.loc["incidence", "esr_rate_low"]


def test_every_figure_of_the_page_can_be_drawn_and_has_numbers(whole_view, quick):
    for drawing in all_drawings(whole_view()):
        assert drawing.draw(width=WIDE).axes, drawing.name
        assert "" in drawing.numbers
        assert all(len(frame) for frame in drawing.numbers.values()), drawing.name
        assert drawing.caption
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", drawing.name)


def test_hostile_names_stay_in_the_folder_and_hostile_labels_are_no_formulas(whole_view, quick, hostile, tmp_path):
    view = whole_view((*hostile, "=HYPERLINK(1)", "+1", "@x"))
    keys = ("../../up", "/etc/passwd", "up", "con:aux\x00", "\u202e", "\u2028")
    experiments = tuple(dataclasses.replace(view.experiments[2], key=key) for key in keys)
    with mpl.rc_context({"savefig.dpi": 20}):
        written = write_figures(dataclasses.replace(view, experiments=experiments), tmp_path / "f", ["svg"])
    assert {path.parent for path in written} == {tmp_path / "f"}
    assert len({path.name for path in written}) == len(written)
    assert {"up.svg", "up-2.svg", "etc-passwd.svg", "con-aux.svg", "experiment.svg", "experiment-2.svg"} <= {
        path.name for path in written
    }
    for path in written:
        if path.suffix == ".csv":
            text = path.read_bytes().decode("utf-8")
            assert not set(text) & set("\x00\x07\x1b\r\u202e\u200b\u2028")
            cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
            assert not [c for c in cells if c[:1] in ("=", "@", "+")]
            assert not [c for c in cells if c[:1] == "-" and not _number(c)]


def _number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_csv_keeps_numbers_exactly_and_says_nothing_where_nothing_is_known():
    frame = pd.DataFrame({"a": [0.1 + 0.2, float("nan")], "b": ["-x", "y,z"], "c": [{"k": 1}, None]})
    rows = list(csv.reader(io.StringIO(csv_text(frame))))
    assert rows == [["a", "b", "c"], ["0.30000000000000004", "'-x", '{"k": 1}'], ["", "y,z", ""]]


@pytest.mark.parametrize("formats", [["gif"], ["png", "jpg"], [""], []])
def test_another_format_is_refused_before_anything_is_written(make_view, tmp_path, formats):
    with pytest.raises(UserError, match="a figure's format is one of png, svg, pdf"):
        write_figures(make_view(), tmp_path / "f", formats)
    assert not (tmp_path / "f").exists()


def test_a_folder_that_cannot_be_written_is_a_clear_error(make_view, quick, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"figures can be written.*Choose another folder"):
        write_figures(make_view(), tmp_path / "file", ["svg"])


def test_names_are_safe():
    assert [safe_name(key) for key in ("boost-sweep", "A b/../c", "", "...", "x" * 200)] == [
        "boost-sweep", "a-b-c", "experiment", "experiment", "x" * 60,
    ]  # fmt: skip
