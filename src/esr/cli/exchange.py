"""Commands that carry trials to other programs and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from esr.cli.app import StudyFolder, app, console, print_headline


class Format(StrEnum):
    """What ``esr export`` writes."""

    JSON = "json"
    PARQUET = "parquet"
    EVAL = "eval"


@app.command("export")
def export_trials(
    study: StudyFolder,
    to: Annotated[
        Format,
        typer.Option(
            help="json: the reference's result files, one per condition; parquet; eval: a log for inspect view."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder (json) or file. Default: STUDY/export, STUDY/trials.parquet, STUDY/trials.eval."),
    ] = None,
) -> None:
    """Write a study's judged trials for other programs.

    Example: esr export my-study --to parquet
    """
    from esr.reporting.untrusted import printable
    from esr.studies.exchange import write_eval, write_parquet, write_reference
    from esr.studies.study import Study

    opened = Study.open(study)
    if to is Format.JSON:
        paths = write_reference(opened, output or study / "export")
    elif to is Format.EVAL:
        paths = [write_eval(opened, output or study / "trials.eval")]
    else:
        about = {"study": opened.config.name, "judge": opened.judge_key, "settings": opened.config.locked()}
        paths = [write_parquet(opened.trials, output or study / "trials.parquet", about)]
    for path in paths:
        console().print(printable(f"Wrote {path}"), soft_wrap=True)


@app.command("import")
def import_trials(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", exists=True, help="A result file of the reference, or a folder of them.")
    ],
    condition: Annotated[str | None, typer.Option(help="Name of the condition, instead of what the file says.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the trials to this file as well.")] = None,
) -> None:
    """Read trials that the reference's code wrote, or `esr export --to json`, and show their rates.

    Example: esr import experiment_results_Llama-3.3-70B.json
    """
    from esr.reporting.untrusted import printable
    from esr.studies.exchange import read_reference, write_parquet

    trials = read_reference(path, condition=condition)
    print_headline(trials)
    counts = trials.attrs["exchange"]
    notes = [f"Trials: {len(trials)}, directions: {trials['direction'].nunique()}, files: {counts['files']}."]
    for key, title in (
        ("features_failed", "Directions that hold an error instead of trials"),
        ("unreadable", "Entries left out, for they are no JSON objects"),
        (
            "unlocated",
            "Multi-attempt responses in which the attempts' texts were not found, so that only scores are known",
        ),
    ):
        if counts[key]:
            notes.append(f"{title}: {counts[key]}.")
    if parquet is not None:
        notes.append(f"Wrote {write_parquet(trials, parquet, {'imported from': path.name})}")
    for note in notes:
        console().print(printable(note), soft_wrap=True)
