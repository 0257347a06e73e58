"""The command that shows trials one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esr.cli.app import AsJson, StudyFolder, app, console, print_json, print_rows
from esr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from esr.studies.study import Study

LISTED = 20
"""Trials listed when several fit."""


@app.command()
def show(
    study: StudyFolder,
    trial: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="Key of a trial, or the beginning of one.")
    ] = None,
    condition: Annotated[str | None, typer.Option(help="Only this condition.")] = None,
    direction: Annotated[str | None, typer.Option(help="Only this direction, for example latent:12 or 12.")] = None,
    prompt: Annotated[int | None, typer.Option(min=0, help="Only the prompt of this number, from 0.")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Beside it: the same direction, prompt and seed under this.")
    ] = None,
    latent: Annotated[
        list[str] | None,
        typer.Option(help="Shade the tokens by this latent (a number), or by a group of `activations`; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial: what was asked, how it was steered, its attempts with scores, kinds and the judge's quotes.

    Without TRIAL, lists the trials that fit, or shows the only one. Keys stand in the list, in the report and in
    --json, which gives one object for a TRIAL and a list without.

    Example: esr show my-study --condition incidence --direction 12
    """
    from esr.studies.study import Study

    opened = Study.open(study)
    trials = opened.trials
    if trials.empty:
        raise UserError("a study that is shown has judged trials", f"none in {study}", f"Run it: esr run {study}")
    found = chosen(trials, trial, condition, direction, prompt)
    if len(found) > 1 and (compare is not None or latent):
        raise UserError("--compare and --latent are for one trial", f"{len(found)} fit", "Give the key of one")
    if as_json and trial is None:
        from esr.reporting.one_trial import trial_json

        print_json([trial_json(row) for row in found.itertuples()])
    elif len(found) == 1:
        _show_one(opened, trials, next(found.itertuples()), compare, latent or [], as_json)
    else:
        from esr.reporting.one_trial import trial_rows

        print_rows(trial_rows(found, LISTED))
        if len(found) > LISTED:
            console().print(f"The first {LISTED} of {len(found)}. Narrow them by --condition, --direction, --prompt.")
        console().print(f"Show one: esr show STUDY {found['trial'].iloc[0][:12]}")


def chosen(
    trials: pd.DataFrame, trial: str | None, condition: str | None, direction: str | None, prompt: int | None
) -> pd.DataFrame:
    """The trials that fit, in the grid's order. Raises UserError when none does, or a key's beginning is not unique."""
    found = trials
    if trial is not None:
        found = found[found["trial"].str.startswith(trial)]
        if found.empty:
            raise UserError("a trial's key is in the study", trial, "List them: esr show STUDY")
        if len(found) > 1:
            raise UserError("the beginning of a key names one trial", f"{trial} of {len(found)}", "Give more of it")
    if direction is not None and direction.isdecimal():
        direction = f"latent:{direction}"
    for column, value in (("condition", condition), ("direction", direction), ("prompt_index", prompt)):
        if value is None:
            continue
        kept = found[found[column].eq(value)]
        if kept.empty:
            raise _unknown(column.removesuffix("_index"), value, found[column].unique())
        found = kept
    return found.sort_values(["condition", "direction", "prompt_index", "seed", "trial"], kind="stable")


def _unknown(what: str, value: object, known: Iterable[object]) -> UserError:
    from esr.studies.mistakes import nearest

    names = sorted(map(str, known))
    near = nearest(str(value), names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    remedy = (f"Did you mean {near}? " if near else "") + f"There are {', '.join(names[:LISTED])}{more}"
    return UserError(f"there are trials of this {what}", str(value), remedy)


def _show_one(
    study: Study, trials: pd.DataFrame, row: Any, compare: str | None, latents: list[str], as_json: bool
) -> None:
    from esr.reporting.one_trial import side_by_side, trial_block, trial_json

    readings = []
    if latents:
        from esr.reporting.token_values import token_values

        readings = token_values(study, row, latents)
    other = None if compare is None else _same_cell(trials, row, compare)
    if as_json:
        print_json(trial_json(row, readings) | ({} if other is None else {"compared": trial_json(other)}))
    elif other is None:
        console().print(trial_block(row, readings))
    else:
        console().print(side_by_side(row, other))
        if readings:
            console().print(trial_block(row, readings))


def _same_cell(trials: pd.DataFrame, row: Any, condition: str) -> Any:
    if condition not in set(trials["condition"]):
        raise _unknown("condition", condition, trials["condition"].unique())
    same = trials[
        trials["condition"].eq(condition)
        & trials["direction"].eq(row.direction)
        & trials["prompt_index"].eq(row.prompt_index)
        & trials["seed"].eq(row.seed)
    ]
    if same.empty:
        raise UserError(
            "the same direction, prompt and seed were judged under the condition compared", f"not under {condition}"
        )
    return next(same.itertuples())
