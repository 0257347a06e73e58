"""Commands about the models that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esr.cli.app import app

organism_app = typer.Typer(help="The small trained models that ship with the package.", no_args_is_help=True)
app.add_typer(organism_app, name="organism")


@organism_app.command("train")
def organism_train(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where models and checkpoints go.")],
    seed: Annotated[int, typer.Option(min=0, help="Seeds data and weights.")] = 0,
) -> None:
    """Train the three organisms and their SAEs from nothing, about half an hour on two cores; resumes when stopped.

    Example: esr organism train my-organism --seed 2
    """
    from esr.organism.recipe import train

    folders = train(seed, out, on_progress=lambda progress: typer.echo(str(progress)))
    for name, folder in folders.items():
        typer.echo(f"{name}: {folder}")
