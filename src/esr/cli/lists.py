"""Commands that list what there is."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from esr.cli.app import AsJson, app, print_rows


@app.command()
def subjects(as_json: AsJson = False) -> None:
    """List the known subjects and what each needs.

    Example: esr subjects
    """
    from esr.subjects.published import subject_rows

    rows = subject_rows()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    print_rows(
        [
            {
                "key": r["key"],
                "layer": f"{r['steered']} of {r['layers']}" + (f"\nreads {r['read']}" * (r["read"] != r["steered"])),
                "SAE": r["SAE"].replace(" / ", "\n"),
                "needs": f"{r['download GB']:g} GB to load\n{r['memory GB']:g} GB memory",
                "settings": f"T {r['temperature']:g}, rep. {r['repetition penalty']:g}, {r['new tokens']} tokens\n"
                f"boost {r['prior']}",
            }
            for r in rows
        ]
    )


@app.command("experiments")
def list_experiments(as_json: AsJson = False) -> None:
    """List the experiments: what each asks, what it costs at most, and what runs before it.

    A condition is one response per direction and prompt: `responses` is for the default study of 40 directions with 5
    prompts each. `esr plan STUDY` counts for your own.

    Example: esr experiments
    """
    from esr.studies.config import parse_config
    from esr.studies.experiments.registry import experiments

    usual = parse_config({"name": "usual", "subject": {"preset": "gemma-2-2b/paper"}}, "the default study")
    rows = [
        {
            "key": e.key,
            "question": e.question,
            "conditions": e.arms(e.settings()),
            "responses": 200 * e.arms(e.settings())
            + (0 if e.reads is None else e.reads(Path(), usual, usual.settings_of(e.key))),
            "needs": ", ".join(e.needs),
            "in all": "yes" if e.in_all else "no",
        }
        for e in experiments().values()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    print_rows(rows)
