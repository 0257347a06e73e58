"""The application object, and what every command shares: console, progress, errors."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from esr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from esr.studies.grading import Progress
    from esr.studies.planning import Plan
    from esr.studies.study import Study

app = typer.Typer(
    help="Measure endogenous steering resistance: does a language model notice that it is steered off topic, say so,"
    " and recover while the push is still on?",
    epilog="Begin with `esr demo`, or with `esr new STUDY`, `esr check STUDY`, `esr run STUDY`, `esr report STUDY`."
    " Exit codes: 0 done; 1 not as it should be (a check failed, or steering broke the model); 2 a mistake that the"
    " message explains; 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
FEW = 4
"""Conditions shown with every count in words."""
MaxCost = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Refuse when judging, at most as `esr plan` counts it, costs more dollars than this; `run` and `judge`"
        " also stop once it has.",
    ),
]


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit."""
    from esr.reporting.untrusted import printable

    print(f"Error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def agree_on_cost(plan: Plan, max_cost: float | None) -> float | None:
    """Ask before judging may cost more than ``max_cost`` dollars; where nobody can be asked, raise UserError. Returns
    the limit that holds: none when going on was agreed on."""
    from esr.reporting.untrusted import printable
    from esr.studies.planning import check_cost

    try:
        check_cost(plan, max_cost)
    except UserError as error:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise
        console().print(printable(str(error)))
        if not typer.confirm("Go on all the same?"):
            sys.exit(2)
        return None
    return max_cost


def console() -> Console:
    """Standard output, 100 columns wide when it is not a terminal."""
    from rich.console import Console

    terminal = Console(highlight=False, markup=False)
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=100)


def print_table(table: Table) -> None:
    """A table as wide as it is made, or folded into a narrower terminal; where its numbers do not fit, the terminal
    wraps the lines: nothing is cut off."""
    from rich.measure import Measurement

    screen, made = console(), table.width
    if made is None or screen.width >= made:
        screen.print(table)
        return
    table.width = None
    least = Measurement.get(screen, screen.options, table).minimum
    fits = least <= screen.width and 4 * screen.width >= 3 * made  # below, words are cut
    table.width = screen.width if fits else made
    screen.print(table, soft_wrap=not fits)


@contextmanager
def progress() -> Iterator[Progress]:
    """A display of progress. Ctrl-C inside lets what is in flight finish (``esr.steering.stopping``), says how to go on
    and exits with 130."""
    from esr.reporting.untrusted import printable
    from esr.steering.stopping import stop
    from esr.studies.progress import Lines, Live

    try:
        if (screen := console()).is_terminal:
            with Live(screen) as live, stop.listening(live.stopping):
                yield live
        else:
            lines = Lines(lambda line: print(printable(line), flush=True))
            with stop.listening(lines.stopping):
                yield lines
    except KeyboardInterrupt:
        again = printable(shlex.join(["esr", *sys.argv[1:]]))
        print(f"Stopped. Everything finished is stored. To go on: {again}", file=sys.stderr)
        sys.exit(130)


def print_json(data: Any) -> None:
    """JSON on standard output; NaN, which JSON does not have, becomes null."""
    print(json.dumps(_without_nan(data), indent=2))


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and math.isnan(data) else data


def print_headline(trials: pd.DataFrame, seed: int = 0) -> None:
    """The rates per condition."""
    from esr.analysis.metrics import summarise

    _print_rates(summarise(trials, seed=seed))


def _print_rates(summary: pd.DataFrame, remarks: Sequence[str] = ()) -> None:
    """Few conditions with every count in words, many in short."""
    from esr.reporting.compact import rows
    from esr.reporting.tables import compact_table, headline_table

    few = len(summary) <= FEW
    table = headline_table(summary, remarks) if few else compact_table("Resistance to steering", rows(summary), remarks)
    print_table(table)


def print_experiments(study: Study, trials: pd.DataFrame, keys: Collection[str] | None = None) -> None:
    """The headline, then a table for each of the experiments asked for (default: all). Each condition stands in one."""
    from esr.analysis.metrics import summarise
    from esr.reporting import compact
    from esr.reporting.assemble import experiment_views, with_tables
    from esr.reporting.dose_table import dose_table
    from esr.reporting.headline import contrasts
    from esr.reporting.results import result_findings
    from esr.reporting.tables import compact_table
    from esr.reporting.untrusted import printable

    asked = experiment_views(study, trials, keys if keys is None else {*keys, *compact.HEADLINE})
    headline = compact.headline_names({k: ran.controls for k, ran in study.experiments.items()}, trials["condition"])
    shown = {*headline, *(name for experiment in asked for name in experiment.controls)}
    summary = summarise(trials[trials["condition"].isin(shown)], seed=study.config.seed)
    if headline:
        remarks = [
            compact.in_words(contrast)
            for experiment in asked
            if experiment.key in compact.HEADLINE and len(table := experiment.comparisons)
            for contrast in contrasts(table[table["statistic"].eq("esr_rate")])
        ]
        _print_rates(summary[summary["condition"].isin(headline)], remarks)
    for experiment in asked:
        if experiment.key in compact.HEADLINE:
            continue
        console().print()
        title = f"{experiment.key}: {experiment.question}"
        if rows := compact.rows(summary, experiment):
            remark = compact.against(experiment, rows)
            print_table(compact_table(title, rows, [remark] if remark else []))
        else:
            console().print(printable(title), style="bold")
        whole = with_tables(study, experiment)
        for finding in result_findings(whole):
            console().print(printable(finding))
        if whole.dose is not None:
            print_table(dose_table(whole.dose))


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Plain rows as a table."""
    from rich.table import Table
    from rich.text import Text

    from esr.reporting.untrusted import printable

    table = Table(box=None, header_style="bold")
    for k, name in enumerate(rows[0]):
        table.add_column(name, overflow="fold", no_wrap=k == 0)  # the first column is what one copies
    for row in rows:
        table.add_row(*(Text(printable(str(value), lines=True)) for value in row.values()))
    console().print(table)
