"""Commands that run a study and show what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esr.cli.app import (
    AsJson,
    MaxCost,
    StudyFolder,
    agree_on_cost,
    app,
    console,
    print_experiments,
    print_json,
    print_rows,
    progress,
)

if TYPE_CHECKING:
    import pandas as pd

    from esr.studies.planning import Stage
    from esr.studies.study import Study


_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@app.command()
def run(
    study: StudyFolder,
    experiment: Annotated[
        list[str] | None,
        typer.Option(help="Key from `esr experiments`; repeat for several. Default: study.toml's."),
    ] = None,
    max_cost: MaxCost = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Engines at work, as Ray actors. Default: study.toml's.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster they run on: auto, or HOST:PORT. Default: this machine.")
    ] = None,
) -> None:
    """Run a study, or what is missing of it. Stop it at any moment and run it again.

    Example: esr run my-study --experiment no-steering --experiment incidence
    """
    from esr.studies.config import read_config
    from esr.studies.experiments.registry import ALL
    from esr.studies.study import Study

    keys = experiment or list(read_config(study).experiments)
    given = {"replicas": replicas, "ray_address": ray_address}
    run_experiments(study, keys, max_cost, {name: value for name, value in given.items() if value is not None})
    opened = Study.open(study)
    show_calibration(opened, opened.trials)
    show_results(opened, opened.trials, None if ALL in keys else keys)


@app.command()
def check(
    study: StudyFolder,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the judge (else one short call).")] = False,
    as_json: AsJson = False,
) -> None:
    """Check whether a study can work before anything long begins: one line per check, exit code 1 if one failed.

    Looks at settings, engine, prompts, model and SAE (width, layer, hook, reconstruction), chat template, room, memory,
    disk, judge, time and cost. Loads the model's layers up to the one the SAE reads.

    Example: esr check my-study
    """
    from dataclasses import asdict

    from rich.text import Text

    from esr.reporting.untrusted import printable
    from esr.studies.checking import check_study

    found = []
    for one in check_study(study, ask_judge=not offline):
        found.append(one)
        if not as_json:
            line = Text(f"{one.state:<8}", style=_STYLES[one.state])
            line.append(f"{printable(one.name, 40)}: {printable(one.found, 500)}", style="")
            if one.remedy:
                line.append(f"\n{'':8}{printable(one.remedy, 500)}", style="")
            console().print(line)
    failed = sum(one.state == "failed" for one in found)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        warned = sum(one.state == "warning" for one in found)
        console().print(f"{len(found)} checks: {failed} failed, {warned} warnings.")
    if failed:
        raise typer.Exit(1)


@app.command()
def status(study: StudyFolder, as_json: AsJson = False) -> None:
    """How far a study is, with the rates so far; works while it runs.

    Example: esr status my-study --json
    """
    from dataclasses import asdict

    from esr.reporting.untrusted import printable
    from esr.studies.standing import standing
    from esr.studies.study import Study

    opened = Study.open(study)
    found = standing(opened)
    trials = opened.trials if found.begun else None
    if as_json:
        print_json(_as_json(opened, trials) | {"standing": asdict(found), "calibration": _calibration(opened, trials)})
        return
    for line in found.lines():
        console().print(printable(line), soft_wrap=True)
    if found.begun:
        show_calibration(opened, trials)
    if trials is not None and not trials.empty:
        show_results(opened, trials)


@app.command()
def plan(
    study: StudyFolder,
    experiment: Annotated[list[str] | None, typer.Option(help="Key from `esr experiments`; repeatable.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="ESR rate to plan for, 0 to 1. Default: this study's, once it has one.")
    ] = None,
    change: Annotated[float | None, typer.Option(help="Change of it to see, for example -0.01.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a run will take (responses, tokens, judge calls, money, time), and what change it can show.

    Example: esr plan my-study --experiment otd-ablation --rate 0.04 --change -0.01
    """
    from dataclasses import asdict

    from esr.reporting.power import power_lines
    from esr.reporting.untrusted import printable
    from esr.studies.config import read_config
    from esr.studies.planning import CHARACTERS_PER_TOKEN, plan_run
    from esr.studies.progress import duration

    config = read_config(study)
    planned = plan_run(study, config, experiment or list(config.experiments))
    power = power_lines(study, config, rate, change)
    if as_json:
        print_json(asdict(planned) | {"power": power})
        return
    rows: list[dict[str, Any]] = [
        {"stage": s.name, "responses": s.responses, "": _counted(s, planned.bounded), "new tokens at most": s.tokens}
        for s in planned.stages
    ]
    for part in planned.parts:
        bound = "exactly" if part.exact else "at most"
        rows.append({"stage": f"  {part.experiment}", "responses": part.responses, "": bound, "new tokens at most": ""})
    print_rows(rows)
    cost = (
        "price not known; see prices.toml" if planned.dollars is None else f"up to about {planned.dollars:.2f} dollars"
    )
    lines = [
        f"{planned.stored} responses stored, {planned.responses_in_words} to come."
        + (f" {planned.waiting} stored ones wait for the judge." if planned.waiting else ""),
        f"Judge {printable(planned.judge)}: {planned.calls_in_words} calls, {planned.judge_input_tokens} input and"
        f" {planned.judge_output_tokens} output tokens; {cost}.",
        f"Basis: every response at its limit of tokens, every calibration round used, {CHARACTERS_PER_TOKEN} characters"
        " per token, no caching. At most: what depends on verdicts to come counts as the whole grid, or as every"
        " restarted response once these are known.",
    ]
    if planned.judge != "rule":
        lines.append(
            "Not counted: an answer that is no valid verdict is asked for again, up to"
            f" {config.judge.max_tries} calls per response ([judge] max_tries)."
        )
    if config.calibration.method == "pooled" and not config.directions.efficacy_boosts:
        lines.append("Not counted: when no unsteered response is scored, calibration asks for up to 60 more.")
    if planned.surrogate_passes:
        lines.append(
            f"The surrogate reads {planned.surrogate_passes} texts under steering, a forward pass each: no responses."
        )
    if not planned.bounded:
        lines.append(f"The efficacy gate: its first batch is counted, and there is no bound: {planned.gate}.")
    elif planned.gate:
        lines.append(
            "The efficacy gate: about is its first batch, enough when two in three pass; at most is"
            f" {printable(planned.gate)}, all tried."
        )
    if planned.seconds is not None:
        lines.append(f"At this study's speed and lengths so far: about {duration(planned.seconds)}.")
    for line in [*lines, *power]:
        console().print(printable(line))


def _counted(stage: Stage, bounded: bool) -> str:
    """What the number of a stage's responses is."""
    if stage.name == "directions" and not bounded:
        return "expected"
    return "" if stage.expected == stage.responses else f"at most, about {stage.expected} expected"


@app.command()
def report(
    study: StudyFolder,
    output: Annotated[Path | None, typer.Option(help="Where to write it. Default: STUDY/report.html.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write every figure there, and beside each its numbers as CSV."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Of the figures: png, svg, pdf, or several with commas between.")
    ] = "png",
    pdf_figures: Annotated[
        bool, typer.Option("--pdf-figures", help="Short for --figures STUDY/figures --format pdf.")
    ] = False,
) -> None:
    """Write the report: one HTML file without network access; and its figures as files, if you like.

    Example: esr report my-study --figures my-figures --format png,svg,pdf
    """
    from esr.reporting.assemble import view_of
    from esr.reporting.drawings import known_formats, write_figures
    from esr.reporting.report import render_report
    from esr.studies.study import Study

    path = output or study / "report.html"
    wanted = known_formats(name.strip().lower() for name in formats.split(","))
    if pdf_figures:
        figures, wanted = figures or study / "figures", ("pdf",)
    view = view_of(Study.open(study))
    render_report(view, path)
    typer.echo(f"Report: {path}")
    if figures is not None:
        written = write_figures(view, figures, wanted)
        typer.echo(f"Figures: {figures}")
        typer.echo(f"{sum(path.suffix != '.csv' for path in written)} files, and their numbers as CSV.")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the demo's studies go.")] = Path("demo-study"),
) -> None:
    """Run the whole pipeline on the bundled organism: no network, no key, a few minutes.

    Example: esr demo
    """
    from esr.organism.demo import make_demo
    from esr.reporting.assemble import write_report
    from esr.studies.study import Study

    reports = []
    for name, study in make_demo(folder).items():
        console().print(f"\n{name}", style="bold")
        opened = Study.open(study)
        run_experiments(study, list(opened.config.experiments))
        show_results(opened, opened.trials)
        reports.append(write_report(opened, study / "report.html"))
    typer.echo("These figures validate the instrument on small trained organisms; they say nothing about large models.")
    for path in reports:
        typer.echo(f"Report: {path}")


def _calibration(study: Study, trials: pd.DataFrame | None) -> dict[str, Any] | None:
    from esr.reporting.calibration import calibration_summary

    return None if trials is None else calibration_summary(study.calibration, study.config.calibration, trials)


def show_calibration(study: Study, trials: pd.DataFrame | None) -> None:
    """One line on the thresholds, once they are known."""
    from esr.reporting.calibration import calibration_line

    if (summary := _calibration(study, trials)) is not None:
        console().print(calibration_line(summary))


def show_results(study: Study, trials: pd.DataFrame, keys: list[str] | None = None) -> None:
    """The rates of the experiments of these keys (default: all), and what must be known with them."""
    from esr.reporting.untrusted import printable

    print_experiments(study, trials, keys)
    for note in study.notes:
        console().print(printable(note))
    if study.is_organism:
        from esr.organism.truths import findings

        for found in findings(study, trials):
            if keys is None or found.experiment in keys:
                said = {True: "recovered", False: "NOT recovered", None: "left open"}[found.recovered]
                console().print(f"Known truth {said}: {found.truth}. {found.evidence}.")


def _as_json(study: Study, trials: pd.DataFrame | None) -> dict[str, Any]:
    """Progress, the rates of every condition, and for every experiment its comparisons."""
    from esr.analysis.metrics import summarise

    def records(frame: pd.DataFrame) -> Any:
        return json.loads(frame.to_json(orient="records"))

    if trials is None or trials.empty:
        return {"progress": {}, "summary": [], "comparisons": {}, "notes": []}
    return {
        "progress": {name: {"judged": done, "planned": planned} for name, (done, planned) in study.progress().items()},
        "summary": records(summarise(trials, seed=study.config.seed)),
        "comparisons": {key: records(study.comparisons(key, trials)) for key in study.experiments},
        "notes": study.notes,
    }


def run_experiments(
    folder: Path, keys: list[str], max_cost: float | None = None, engine: Mapping[str, Any] | None = None
) -> None:
    """Run, with a display of progress. ``engine``: settings of [engine] that hold for this run."""
    from esr.studies.config import read_config
    from esr.studies.planning import budget_of, plan_run

    config = read_config(folder)
    if engine:
        config = config.model_copy(update={"engine": config.engine.model_copy(update=dict(engine))})
    budget = budget_of(folder, config.judge.name, agree_on_cost(plan_run(folder, config, keys), max_cost))
    with progress() as shown:
        from esr.studies.runner import run_study

        run_study(folder, config, keys, shown, budget=budget)
