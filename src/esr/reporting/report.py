"""The report of a study as one HTML file that needs nothing else: no network, no script, figures inside.

Everything the study holds is untrusted: the template escapes it for HTML, the environment's ``finalize``
passes every string through ``printable``, and the page's content security policy allows inline styles and
data images, nothing more.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from esr.analysis.metrics import summarise
from esr.analysis.paired import compare_all
from esr.errors import UserError
from esr.reporting import figures, numbers
from esr.reporting.episodes import choose_episodes, segments
from esr.reporting.headline import BY_KEY, RATES, contrasts, grouped_notes, headlines, pairing
from esr.reporting.untrusted import printable
from esr.reporting.view import StudyView

_DPI = 160


@dataclass(frozen=True)
class Picture:
    """A figure in both colour schemes and two widths, as data URIs."""

    light: str
    dark: str
    light_narrow: str
    dark_narrow: str


def render_report(view: StudyView, path: Path) -> None:
    """Write the report to ``path``: whole or not at all. Raises UserError when the file cannot be written."""
    html = report_html(view)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(html)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UserError("the report can be written", f"{path} ({error.strerror})", "Choose another folder") from error


def report_html(view: StudyView) -> str:
    """The page. The same view gives the same text. Raises UserError for a view without trials."""
    summary = summarise(view.trials, seed=view.seed)
    conditions = set(summary["condition"])
    paired = None
    if view.control in conditions and len(conditions) > 1:
        paired = compare_all(view.trials, view.control, seed=view.seed)
    rows = headlines(summary)
    calibrated = view.calibration["status"].eq("calibrated")
    return _environment().get_template("report.html.j2").render(
        view=view,
        headlines=rows,
        footnotes=grouped_notes(rows),
        statistics=BY_KEY,
        rates=RATES,
        contrasts=[] if paired is None else contrasts(paired),
        pairing=[] if paired is None else pairing(paired),
        figures=_pictures(view, summary),
        calibrated=view.calibration[calibrated].sort_values("threshold", kind="stable").to_dict("records"),
        uncalibrated=view.calibration[~calibrated].to_dict("records"),
        exclusions=view.exclusions.to_dict("records"),
        stages=view.stages.to_dict("records"),
        episodes=list(_episodes(view.trials)),
        settings=list(flat(view.settings)),
        provenance=list(flat(view.provenance)),
    )  # fmt: skip


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in their own order."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", str(value)


def _pictures(view: StudyView, summary: pd.DataFrame) -> dict[str, Picture]:
    drawn = {
        "rates": _picture(lambda **look: figures.rates(summary, **look)),
        "first_last": _picture(lambda **look: figures.first_last(view.trials, **look)),
    }
    if not view.calibration.empty:
        drawn["thresholds"] = _picture(lambda **look: figures.thresholds(view.calibration, view.target, **look))
    return drawn


def _picture(draw: Callable[..., Figure]) -> Picture:
    looks = [(theme, width) for width in (figures.WIDE, figures.NARROW) for theme in (figures.LIGHT, figures.DARK)]
    return Picture(*(_data_uri(figures.png(draw(theme=theme, width=width), _DPI)) for theme, width in looks))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _episodes(trials: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in choose_episodes(trials).to_dict("records"):
        yield {str(name): value for name, value in row.items()} | {"segments": segments(row["text"], row["attempts"])}


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
    }
    return environment


def _finalize(value: Any) -> Any:
    """Every expression of the template comes through here, before it is escaped."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value
