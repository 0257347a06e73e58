"""Commands about judges: judge again, compare judges, check a judge against labelled truth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from esr.cli.app import (
    AsJson,
    MaxCost,
    StudyFolder,
    agree_on_cost,
    app,
    console,
    print_headline,
    print_json,
    print_rows,
    print_table,
    progress,
)
from esr.errors import UserError

JudgeName = Annotated[
    str, typer.Option("--judge", help="`rule`, or PROVIDER/MODEL; the key comes from the provider's variable.")
]
Rubric = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Markdown rubric instead of the bundled one.")
]
Segments = Annotated[bool, typer.Option("--segments", help="Also score thirds of the response (implicit recovery).")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server.")]
Batch = Annotated[bool, typer.Option("--batch", help="The provider's batch mode: cheaper, may take a day.")]
Connections = Annotated[int, typer.Option(min=1, help="Most calls in flight.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds per call.")]


@app.command()
def judge(
    study: StudyFolder,
    name: JudgeName,
    rubric: Rubric = None,
    segments: Segments = False,
    screened: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1, help="Judge responses with a restart phrase and this share of the others; reweighted."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Judge what the study's own judge found multi-attempt and about so many others; reweighted."
        ),
    ] = None,
    base_url: BaseUrl = None,
    batch: Batch = False,
    max_connections: Connections = 32,
    timeout: Timeout = 60,
    retry: Annotated[
        bool, typer.Option("--retry", help="Ask again where the network or the provider failed before.")
    ] = False,
    max_cost: MaxCost = None,
) -> None:
    """Have a study's responses judged, by another judge or again. Verdicts already stored are not asked for again.

    Example: esr judge my-study --judge anthropic/claude-haiku-4-5 --max-cost 5
    """
    from esr.analysis.notes import implicit_notes, screen_note
    from esr.reporting.untrusted import printable
    from esr.studies.config import JudgeSettings
    from esr.studies.planning import budget_of, plan_judging
    from esr.studies.regrading import prepare, regrade
    from esr.studies.study import Study

    if screened is not None and sample is not None:
        raise UserError("a judge is given --screened or --sample", "both")
    opened = Study.open(study)
    settings = JudgeSettings(
        name=name,
        rubric=None if rubric is None else str(rubric.resolve()),
        segments=segments,
        cover="all" if screened is None else "screened",
        cover_share=1.0 if screened is None else screened,
        base_url=base_url,
        batch=batch,
        max_connections=max_connections,
        timeout=timeout,
    )
    work = prepare(study, opened.config, settings, retry=retry, sample=sample)
    planned = plan_judging(study, settings, len(work.missing), work.tokens)
    budget = budget_of(study, name, agree_on_cost(planned, max_cost))
    with progress() as shown:
        key = regrade(work, shown, budget)
    trials = opened.trials_by(key)
    console().print(printable(f"Judged by {name}, key {key}"))
    print_headline(trials)
    for note in (screen_note(trials), *implicit_notes(trials)):
        console().print(printable(note))


@app.command()
def agreement(study: StudyFolder, as_json: AsJson = False) -> None:
    """How far the judges of a study agree, pair by pair.

    Example: esr agreement my-study
    """
    from esr.judging.agreement import pairwise_agreement
    from esr.reporting.untrusted import printable
    from esr.studies.study import Study
    from esr.subjects.published_figures import published_figures

    opened = Study.open(study)
    judgements = opened.judgements
    if judgements["judge"].nunique() < 2:
        raise UserError(
            "agreement needs two judges", f"{judgements['judge'].nunique()}", "Add one: esr judge STUDY --judge MODEL"
        )
    found = pairwise_agreement(judgements, seed=opened.config.seed)
    if as_json:
        print_json([asdict(a) for a in found])
        return
    rows: list[dict[str, Any]] = []
    for pair in found:
        if not pair.n:
            console().print(printable(f"{' / '.join(pair.judges)}: no response scored by both"))
            continue
        for title, field in (
            ("multi-attempt, raw", pair.raw),
            ("multi-attempt, Cohen's kappa", pair.kappa),
            ("multi-attempt, Krippendorff's alpha", pair.alpha),
            ("direction of change", pair.direction),
            ("first score, Spearman", pair.score_rank),
            ("first score, mean difference", pair.score_difference),
            ("first score, Krippendorff's alpha", pair.score_alpha),
            ("first restart, characters apart", pair.boundary),
        ):
            interval = f"{field.low:.3g} to {field.high:.3g}"
            rows.append({"judges": " / ".join(pair.judges), "agreement": title, "value": f"{field.value:.3g}",
                         "95 % interval": interval, "n": field.n})  # fmt: skip
        summary = (
            f"{' / '.join(pair.judges)}: {pair.n} responses of {pair.directions} directions scored by both;"
            f" unscored {pair.unscored[0]} / {pair.unscored[1]}; multi-attempt {pair.multi[0]} / {pair.multi[1]}"
        )
        console().print(printable(summary))
    if rows:
        print_rows(rows)
    for figure in published_figures(opened.config.subject):
        if figure.condition == "cross-judge":
            console().print(f"Published for this subject: {figure.quantity} {figure.value} ({figure.source})")


@app.command("judge-check")
def judge_check(
    name: JudgeName = "rule",
    labelled: Annotated[
        Path | None, typer.Option("--set", help="Labelled set (JSON lines, or the reference's results); default: ours.")
    ] = None,
    rubric: Rubric = None,
    segments: Segments = False,
    base_url: BaseUrl = None,
    batch: Batch = False,
    max_connections: Connections = 32,
    timeout: Timeout = 60,
    as_json: AsJson = False,
) -> None:
    """Check a judge against labelled responses: recall and precision on restarts, boundaries, scores, cost.

    The rule judge is always shown beside it. Example: esr judge-check --judge openai/gpt-4.1-mini
    """
    from esr.judging.check import check_judge, check_table
    from esr.judging.labelled import load_labelled
    from esr.judging.records import Judge
    from esr.judging.rule import RuleJudge
    from esr.reporting.untrusted import printable
    from esr.studies.judges import preflight
    from esr.studies.planning import price

    rows = load_labelled(labelled)
    judges: list[Judge] = [RuleJudge()]
    if name != "rule":
        from esr.judging.model import ModelJudge

        model = ModelJudge(
            name, rubric=rubric, segments=segments, base_url=base_url, batch=batch,
            max_connections=max_connections, timeout=timeout,
        )  # fmt: skip
        preflight(model)
        judges.append(model)
    reports = [check_judge(judge, rows) for judge in judges]
    if as_json:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        print_table(check_table(report))
    for judge_used in judges:
        usage = getattr(judge_used, "usage", None)
        if usage is not None:
            said = (
                f"{judge_used.name}: {usage.calls} calls, {usage.input_tokens} input tokens"
                f" ({usage.cached_tokens} cached), {usage.output_tokens} output tokens"
            )
            if (known := price(Path(), judge_used.name)) is not None:
                dollars = (usage.input_tokens * known[0] + usage.output_tokens * known[1]) / 1e6
                said += f", about {dollars:.2f} dollars at list price"
            console().print(printable(said))
