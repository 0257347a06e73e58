"""The report of a study as one HTML file that needs nothing else: no network, figures and data inside.

Everything the study holds is untrusted: the template escapes it for HTML, the environment's ``finalize`` passes every
string through ``printable``, and the page's content security policy (``esr.reporting.viewer.security``) allows its own
styles and scripts, by their hash, and data images, nothing more. So no element of a template has a ``style`` attribute.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from esr.analysis.metrics import summarise
from esr.analysis.notes import implicit_notes
from esr.analysis.paired import MIN_EVENTS, compare_all
from esr.analysis.recovery import recoveries
from esr.errors import UserError
from esr.reporting import compact, figures, numbers
from esr.reporting.agreement_figure import agreement_table
from esr.reporting.compact import HEADLINE, Row, headline_names
from esr.reporting.drawings import (
    agreement_drawings,
    calibration_drawings,
    check_drawings,
    headline_drawings,
)
from esr.reporting.episodes import choose_episodes, segments
from esr.reporting.experiments import Drawing, drawn, levels
from esr.reporting.headline import (
    BY_KEY,
    RATES,
    Contrast,
    Recovery,
    contrasts,
    grouped_notes,
    headlines,
    pairing,
    recovery_rows,
)
from esr.reporting.results import ResultTable, result_findings, result_tables
from esr.reporting.untrusted import printable
from esr.reporting.view import StudyView
from esr.reporting.viewer import Inline, Viewer
from esr.subjects.published_figures import PublishedFigure


@dataclass(frozen=True)
class Picture:
    """A figure in two widths as data URIs; each follows the reader's colour scheme."""

    wide: str
    narrow: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One experiment as the page shows it."""

    key: str
    anchor: str
    question: str
    rows: list[Row]
    """Its conditions."""
    controls: list[Row]
    """What they are compared with, where that is another experiment's."""
    notes: list[str]
    findings: list[str]
    """What it found besides rates."""
    contrasts: list[Contrast]
    pairing: list[str]
    pictures: list[Picture]
    tables: list[ResultTable]
    published: list[PublishedFigure]


def render_report(view: StudyView, path: Path) -> None:
    """Write the report to ``path``: whole or not at all. Raises UserError when the file cannot be written."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.writelines(report_parts(view))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UserError("the report can be written", f"{path} ({error.strerror})", "Choose another folder") from error


def report_html(view: StudyView) -> str:
    """The page as one text. Raises UserError for a view without trials."""
    return "".join(report_parts(view))


def report_parts(view: StudyView) -> Iterator[str]:
    """The page, part by part: a large study's responses are never in memory twice. The same view gives the same text.

    Raises UserError for a view without trials.
    """
    controls = {name: control for e in view.experiments for name, control in e.controls.items()}
    rest = dict.fromkeys(set(view.trials["condition"]) - controls.keys(), view.control)
    viewer = Viewer(view.trials, controls | rest, view.tokens)
    inline = Inline(styles=(_style(), viewer.style), scripts=(viewer.script,))
    yield _page(view, viewer, inline)
    yield from viewer.index()
    yield inline.script_elements
    yield from viewer.blocks()
    yield "</body>\n</html>\n"


def _page(view: StudyView, viewer: Viewer, inline: Inline) -> str:
    """All but the viewer's data and script."""
    summary = summarise(view.trials, seed=view.seed)
    names = headline_names({e.key: e.controls for e in view.experiments}, summary["condition"])
    shown = summary[summary["condition"].isin(names)]
    rows = headlines(shown)
    paired = _headline_comparisons(view, names)
    calibrated = view.calibration["status"].eq("calibrated")
    return _environment().get_template("report.html.j2").render(
        view=view,
        viewer=viewer,
        inline=inline,
        headlines=rows,
        footnotes=[*grouped_notes(rows), *_implicit(view, names)],
        statistics=BY_KEY,
        rates=RATES,
        min_events=MIN_EVENTS,
        contrasts=[] if paired is None else contrasts(paired),
        pairing=[] if paired is None else pairing(paired),
        published=[f for f in view.published if f.condition.partition(":")[0] in HEADLINE],
        published_judges=[f for f in view.published if f.condition == "cross-judge"],
        sections=_sections(view, summary),
        pictures=_pictures(view, shown),
        recoveries=_recoveries(view, names),
        agreement=agreement_table(view.agreement) if view.agreement else None,
        judges=view.judges.to_dict("records"),
        directions=view.calibration.to_dict("records"),
        calibrated=view.calibration[calibrated].sort_values("threshold", kind="stable").to_dict("records"),
        uncalibrated=view.calibration[~calibrated].to_dict("records"),
        exclusions=view.exclusions.to_dict("records"),
        stages=view.stages.to_dict("records"),
        total_tokens=view.stages["tokens"].sum(),
        episodes=list(_episodes(view.trials)),
        settings=list(flat(view.settings)),
        provenance=list(flat(view.provenance)),
    )  # fmt: skip


def _headline_comparisons(view: StudyView, names: Sequence[str]) -> pd.DataFrame | None:
    """Those of the headline's experiments, else of all its conditions with the view's control; None without any."""
    tables = [e.comparisons for e in view.experiments if e.key in HEADLINE and len(e.comparisons)]
    if tables:
        return pd.concat(tables, ignore_index=True)
    if view.experiments or view.control not in names or len(names) < 2:
        return None
    return compare_all(view.trials, view.control, seed=view.seed)


def _sections(view: StudyView, summary: pd.DataFrame) -> list[Section]:
    """One for each experiment that is not in the headline and of which there is anything to show."""
    boosts = levels(view.trials, view.calibration)
    sections: list[Section] = []
    for experiment in view.experiments:
        rows, tables = compact.rows(summary, experiment), result_tables(experiment)
        if experiment.key in HEADLINE or not (rows or tables):
            continue
        apart = {row.esr.control for row in rows if row.esr is not None} - experiment.controls.keys()
        remark, paired = compact.against(experiment, rows), experiment.comparisons
        notes = [remark] * bool(remark) + compact.notes(rows) + _implicit(view, experiment.controls)
        drawings = drawn(experiment, summary, boosts)
        sections.append(
            Section(
                key=experiment.key,
                anchor=f"experiment-{len(sections) + 1}",
                question=experiment.question,
                rows=rows,
                controls=compact.rows(summary[summary["condition"].isin(apart)]),
                notes=notes,
                findings=result_findings(experiment),
                contrasts=contrasts(paired),
                pairing=pairing(paired) if len(paired) else [],
                pictures=[_picture(drawing) for drawing in drawings],
                tables=tables,
                published=[f for f in view.published if f.condition.partition(":")[0] == experiment.key],
            )
        )
    return sections


def _plain(value: object) -> str:
    """As study.toml writes it; what is not set there is said to be so."""
    if value is None or value == "":
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _recoveries(view: StudyView, names: Collection[str]) -> list[Recovery]:
    """Of the headline's conditions, the kinds of recovery apart."""
    mine = view.trials[view.trials["condition"].isin(list(names))]
    return recovery_rows(recoveries(mine, seed=view.seed)) if len(mine) else []


def _implicit(view: StudyView, names: Collection[str]) -> list[str]:
    return implicit_notes(view.trials[view.trials["condition"].isin(list(names))])


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in their own order."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield f"{prefix}{name}", ", ".join(_plain(item) for item in value) or "none"
        else:
            yield f"{prefix}{name}", _plain(value)


def _pictures(view: StudyView, shown: pd.DataFrame) -> dict[str, list[Picture]]:
    """Those that belong to no experiment, by the section they stand in."""
    found = {
        "results": headline_drawings(view, shown),
        "judges": agreement_drawings(view),
        "calibration": calibration_drawings(view),
        "directions": check_drawings(view),
    }
    return {section: [_picture(drawing) for drawing in drawings] for section, drawings in found.items()}


def _picture(drawing: Drawing) -> Picture:
    wide, narrow = (
        _data_uri(figures.themed(figures.svg(drawing.draw(width=width)))) for width in (figures.WIDE, figures.NARROW)
    )
    return Picture(wide, narrow, drawing.caption)


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _episodes(trials: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in choose_episodes(trials).to_dict("records"):
        yield {str(name): value for name, value in row.items()} | {"segments": segments(row["text"], row["attempts"])}


@cache
def _style() -> str:
    return (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clip": lambda text, limit: printable(text, limit, lines=True),
        "percent": numbers.percent,
        "points": numbers.points,
        "significant": numbers.significant,
        "span": numbers.span,
        "duration": numbers.duration,
        "groupby_pair": _by_pair,
    }
    return environment


def _by_pair(rows: Sequence[Contrast]) -> list[tuple[tuple[str, str], list[Contrast]]]:
    """Contrasts by treatment and control, in their order."""
    return [(pair, list(group)) for pair, group in groupby(rows, lambda c: (c.treatment, c.control))]


def _finalize(value: Any) -> Any:
    """Every expression of the template comes through here, before it is escaped."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value
