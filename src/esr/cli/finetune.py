"""The command that fine-tunes a study's subject to correct itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esr.cli.app import AsJson, MaxCost, StudyFolder, agree_on_cost, app, print_table, progress
from esr.errors import UserError

if TYPE_CHECKING:
    from esr.finetuning.settings import FineTuneSettings


@app.command("fine-tune")
def fine_tune(
    study: StudyFolder,
    shares: Annotated[
        str | None,
        typer.Option(help="Per cent of self-correction examples, one adapter each. Default: 10,30,50,70,90."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where they come from: study (its episodes), constructed (spliced from its responses) or judge"
            " (written by the model that judges). Default: constructed.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A JSONL file of examples instead.")] = None,
    examples: Annotated[int | None, typer.Option(min=2, help="Training examples per adapter. Default: 1900.")] = None,
    max_cost: MaxCost = None,
    as_json: AsJson = False,
) -> None:
    """Can self-correction be trained in? Trains one LoRA adapter per share and measures each.

    Every adapter's study is in STUDY/fine-tuning/share-NN. More settings: fine-tuning in [experiment] of study.toml.
    Stop it at any moment and run it again. Needs the extra `train`.

    Example: esr fine-tune my-study --shares 10,50,90
    """
    from esr.finetuning.settings import read_settings
    from esr.studies.config import read_config

    if data is not None and source is not None:
        raise UserError("examples come from one place", f"--data {data} and --from {source}", "Give one of them")
    settings = read_settings(
        study,
        read_config(study),
        shares=_shares(shares),
        source=source,
        data=None if data is None else str(data.resolve()),
        examples=examples,
    )
    run(study, settings, max_cost)
    show(study, as_json)


def run(study: Path, settings: FineTuneSettings, max_cost: float | None) -> None:
    """Fine-tune, with a display of progress."""
    from esr.finetuning.planning import plan_fine_tuning
    from esr.finetuning.shares import run_fine_tuning
    from esr.studies.config import read_config

    config = read_config(study)
    agree_on_cost(plan_fine_tuning(study, config, settings), max_cost)
    with progress() as shown:
        run_fine_tuning(study, config, shown, settings)


def show(study: Path, as_json: bool = False) -> None:
    """The dose-response table; its figure and all its columns go to STUDY/fine-tuning."""
    from esr.finetuning.dose import dose_response
    from esr.finetuning.settings import FOLDER
    from esr.reporting.dose_figure import dose_response_figure
    from esr.reporting.dose_table import dose_table
    from esr.reporting.figures import png
    from esr.studies.study import Study

    frame = dose_response(study)
    frame.to_csv(study / FOLDER / "dose-response.csv", index=False)
    (study / FOLDER / "dose-response.png").write_bytes(png(dose_response_figure(frame)))
    if as_json:
        typer.echo(json.dumps(json.loads(frame.to_json(orient="records")), indent=2))
        return
    print_table(dose_table(frame))
    if Study.open(study).is_organism:
        typer.echo("These figures validate the instrument on a small trained organism; they are no evidence about"
                   " large models.")  # fmt: skip
    typer.echo(f"Figure and all columns: {study / FOLDER / 'dose-response.png'}, dose-response.csv")


def _shares(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("%", "").split(","))
    except ValueError:
        raise UserError("--shares is a list of whole per cents", text, "Example: --shares 10,50,90") from None
