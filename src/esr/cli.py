"""The command line: parses, calls, prints. Run ``esr --help``.

Exit codes: 0 done; 1 steering failed or broke the model; 2 a mistake the message explains; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from esr.errors import SteeringError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from esr.studies.grading import Progress
    from esr.studies.study import Study

app = typer.Typer(
    help="Measure endogenous steering resistance: does a language model notice that it is steered off topic, say so,"
    " and recover while the push is still on?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
organism_app = typer.Typer(help="The small trained models that ship with the package.", no_args_is_help=True)
app.add_typer(organism_app, name="organism")

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def new(
    study: StudyFolder,
    preset: Annotated[str | None, typer.Option(help="A known subject; see `esr subjects`.")] = None,
    model: Annotated[str | None, typer.Option(help="Hugging Face id or folder of a causal LM.")] = None,
    sae: Annotated[
        str | None, typer.Option(help="SAE: a folder saved by SAELens, or RELEASE:ID of one SAELens knows.")
    ] = None,
    vectors: Annotated[str | None, typer.Option(help="Safetensors file of vectors, instead of an SAE.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Decoder layer to steer, from 0.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Text with {prompt}, for a model without a chat template.")
    ] = None,
    upper: Annotated[float | None, typer.Option(help="Highest boost calibration may try.")] = None,
    target: Annotated[float, typer.Option(min=0, max=100, help="Mean score that defines the threshold.")] = 30.0,
    count: Annotated[int, typer.Option(min=1, help="Directions.")] = 40,
    prompts: Annotated[str, typer.Option(help="Prompt file, or a bundled set.")] = "how-to",
    per_direction: Annotated[int, typer.Option(min=1, help="Trials per direction and condition.")] = 5,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest response, in tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Master seed.")] = 0,
) -> None:
    """Write a commented study.toml.

    Example: esr new my-study --model google/gemma-2-2b-it --sae
    gemma-scope-2b-pt-res-canonical:layer_16/width_16k/canonical --layer 16 --upper 300
    """
    from esr.studies.new import write_study

    subject: dict[str, Any] = {"preset": preset, "model": model, "steer_layer": layer, "template": template}
    calibration: dict[str, Any] = {"target": target}
    directions: dict[str, Any] = {"count": count, "vectors": vectors}
    if preset is None:
        if model is None or layer is None:
            raise UserError("a new study names --preset, or --model and --layer", None, "See `esr subjects`")
        if upper is None:
            raise UserError(
                "a subject without published bounds needs --upper, the highest boost to try", None,
                "A boost of the residual stream's own norm is a good first guess",
            )  # fmt: skip
    if sae is not None:
        release, colon, sae_id = sae.partition(":")
        by_id = colon and not Path(sae).exists()
        subject["sae"] = {"release": release, "id": sae_id} if by_id else {"path": str(Path(sae).resolve())}
    if model is not None and Path(model).is_dir():
        subject["model"] = str(Path(model).resolve())
    if vectors is not None:
        directions["vectors"] = str(Path(vectors).resolve())
    if Path(prompts).is_file():
        prompts = str(Path(prompts).resolve())
    if upper is not None:
        calibration |= {"lower": 0.0, "upper": upper, "prior_mean": upper / 2, "prior_sd": upper / 4}
    config = write_study(
        study,
        {
            "name": study.resolve().name,
            "format": 1,
            "seed": seed,
            "experiments": ["no-steering", "incidence"],
            "subject": {k: v for k, v in subject.items() if v is not None},
            "sampling": {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens},
            "prompts": {"file": prompts, "per_direction": per_direction},
            "directions": directions,
            "calibration": calibration,
            "judge": {"name": "rule"},
            "engine": {"batch_size": 64},
        },
    )
    typer.echo(f"Wrote {study / 'study.toml'} for {config.subject.model}. Next: esr run {study}")


@app.command()
def run(
    study: StudyFolder,
    experiment: Annotated[
        list[str] | None,
        typer.Option(help="Key from `esr experiments`; repeat for several. Default: study.toml's."),
    ] = None,
) -> None:
    """Run a study, or what is missing of it. Stop it at any moment and run it again.

    Example: esr run my-study --experiment no-steering --experiment incidence
    """
    from esr.studies.config import read_config
    from esr.studies.study import Study

    config = read_config(study)
    _run(study, experiment or list(config.experiments))
    _print_headline(Study.open(study))


@app.command()
def status(study: StudyFolder, as_json: AsJson = False) -> None:
    """How far a study is, with the rates so far; works while it runs.

    Example: esr status my-study --json
    """
    from esr.studies.study import Study

    opened = Study.open(study)
    progress = opened.progress()
    trials = opened.trials
    if as_json:
        from esr.analysis.metrics import summarise

        summary = [] if trials.empty else json.loads(summarise(trials).to_json(orient="records"))
        counts = {name: {"judged": done, "planned": planned} for name, (done, planned) in progress.items()}
        typer.echo(json.dumps({"progress": counts, "summary": summary}, indent=2))
        return
    for stage in opened.stages.itertuples():
        typer.echo(f"{stage.stage}: {stage.responses} responses, {stage.tokens} tokens, {stage.seconds:.0f} s")
    for name, (done, planned) in progress.items():
        typer.echo(f"{name}: {done} of {planned} trials judged")
    if not trials.empty:
        _print_headline(opened)


@app.command()
def report(
    study: StudyFolder,
    output: Annotated[Path | None, typer.Option(help="Where to write it. Default: STUDY/report.html.")] = None,
) -> None:
    """Write the report: one HTML file without network access.

    Example: esr report my-study
    """
    from esr.reporting.assemble import write_report
    from esr.studies.study import Study

    typer.echo(f"Report: {write_report(Study.open(study), output or study / 'report.html')}")


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
        _console().print(f"\n{name}", style="bold")
        opened = Study.open(study)
        _run(study, list(opened.config.experiments))
        _print_headline(opened)
        reports.append(write_report(opened, study / "report.html"))
    typer.echo("These figures validate the instrument on small trained organisms; they say nothing about large models.")
    for path in reports:
        typer.echo(f"Report: {path}")


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
    _print_rows(rows)


@app.command()
def experiments(as_json: AsJson = False) -> None:
    """List the experiments and their conditions.

    Example: esr experiments
    """
    from esr.studies.experiments import EXPERIMENTS

    rows = [
        {"key": e.key, "question": e.question, "conditions": ", ".join(c.name for c in e.conditions())}
        for e in EXPERIMENTS.values()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _print_rows(rows)


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


def main() -> None:
    """Entry point of the ``esr`` command."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error), 2)
    except SteeringError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    from esr.reporting.untrusted import printable

    print(f"Error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _console() -> Console:
    from rich.console import Console

    terminal = Console(highlight=False, markup=False)
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=100)


def _run(folder: Path, keys: list[str]) -> None:
    from esr.studies.config import read_config
    from esr.studies.experiments import experiment

    for key in keys:
        experiment(key)
    config = read_config(folder)
    with _progress() as progress:
        try:
            from esr.studies.runner import run_study

            run_study(folder, config, keys, progress)
        except KeyboardInterrupt:  # caught here, because typer would swallow it
            print("Stopped. Everything finished is stored; run the same command again to go on.", file=sys.stderr)
            sys.exit(130)


@contextmanager
def _progress() -> Iterator[Progress]:
    from esr.studies.progress import Lines, Live

    console = _console()
    if console.is_terminal:
        with Live(console) as live:
            yield live
    else:
        yield Lines(lambda line: print(line, flush=True))


def _print_headline(study: Study) -> None:
    from esr.analysis.metrics import summarise
    from esr.reporting.tables import headline_table

    _console().print(headline_table(summarise(study.trials)))


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    _console().print(table)


if __name__ == "__main__":
    main()
