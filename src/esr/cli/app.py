"""The application object, and what every command shares: console, progress, errors."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from esr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from esr.studies.grading import Progress
    from esr.studies.planning import Plan

app = typer.Typer(
    help="Measure endogenous steering resistance: does a language model notice that it is steered off topic, say so,"
    " and recover while the push is still on?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Refuse when judging may cost more dollars than this.")]


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit."""
    from esr.reporting.untrusted import printable

    print(f"Error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def agree_on_cost(plan: Plan, max_cost: float | None) -> None:
    """Ask before judging may cost more than ``max_cost`` dollars; where nobody can be asked, raise UserError."""
    import click

    from esr.studies.planning import check_cost

    try:
        check_cost(plan, max_cost)
    except UserError as error:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise
        console().print(str(error))
        if not click.confirm("Go on all the same?"):
            sys.exit(2)


def console() -> Console:
    """Standard output, 100 columns wide when it is not a terminal."""
    from rich.console import Console

    terminal = Console(highlight=False, markup=False)
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=100)


@contextmanager
def progress() -> Iterator[Progress]:
    """A display of progress; Ctrl-C inside says how to go on and exits with 130."""
    from esr.studies.progress import Lines, Live

    try:
        if (screen := console()).is_terminal:
            with Live(screen) as live:
                yield live
        else:
            yield Lines(lambda line: print(line, flush=True))
    except KeyboardInterrupt:  # caught here, because typer would swallow it
        print("Stopped. Everything finished is stored; run the same command again to go on.", file=sys.stderr)
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


def print_headline(trials: pd.DataFrame) -> None:
    """The rates per condition."""
    from esr.analysis.metrics import summarise
    from esr.reporting.tables import headline_table

    console().print(headline_table(summarise(trials)))


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
