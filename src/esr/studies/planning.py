"""What a run will take before it is run: responses, tokens, judge calls, money. Upper estimates, with their basis."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from esr.errors import UserError
from esr.studies.config import JudgeSettings, StudyConfig
from esr.studies.experiments.registry import wanted
from esr.studies.prompts import study_prompts
from esr.studies.store import Store

CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; other languages need more tokens."""
VERDICT_TOKENS = 90
"""Output of one verdict: the form around one or two quotes of up to 12 words."""
PROMPT_TOKENS = 40
"""A how-to question in its chat template."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    responses: int
    """Responses still to generate, at most."""
    tokens: int
    """New tokens at most: every response at its limit."""


@dataclass(frozen=True)
class Plan:
    """What is still to do of a study."""

    stages: tuple[Stage, ...]
    stored: int
    """Responses the study already has."""
    judge: str
    judge_calls: int
    judge_input_tokens: int
    judge_output_tokens: int
    dollars: float | None
    """None when the judge's price is not known."""
    seconds: float | None
    """At the speed of this study so far; None before it has generated anything."""

    @property
    def responses(self) -> int:
        """Responses of all stages."""
        return sum(stage.responses for stage in self.stages)


def plan_run(folder: Path, config: StudyConfig, experiments: Sequence[str]) -> Plan:
    """Plan the missing part of a run. Raises UserError as a run would for settings, experiments and prompts."""
    prompts = len(study_prompts(config.prompts.file, folder, config.subject.model))
    d, c = config.directions, config.calibration
    limit, half = config.sampling.max_new_tokens, max(1, round(config.sampling.max_new_tokens / 2))
    chosen = wanted(experiments, sae=config.subject.sae is not None)
    arms = {e.key: e.arms(config.settings_of(e.key)) for e in chosen}
    baseline = prompts * d.baseline_per_prompt
    tried = round(1.5 * d.count) * len(d.efficacy_boosts) * d.efficacy_prompts
    searched = d.count * c.rounds * c.repeats
    trials = d.count * config.prompts.per_direction * sum(arms.values())
    stages = [
        Stage("directions", baseline + tried, baseline * limit + tried * half),
        Stage("calibration", searched, searched * half),
        Stage("trials", trials, trials * limit),
    ]
    stored, speed = 0, None
    if (folder / "study.sqlite").exists():
        with Store.reading(folder) as store:
            work = store.stages()
            stored, tokens, seconds = sum(s[3] for s in work), sum(s[2] for s in work), sum(s[1] for s in work)
            speed = tokens / seconds if tokens and seconds else None
            if store.record("selection", config.selection_key()) is not None:
                stages[0] = Stage("directions", 0, 0)
            if (found := store.record("calibration", "all")) is not None:
                usable = sum(row["threshold"] is not None for row in found)
                noted = {e.key: (store.record("experiment", e.key) or {}).get("controls") or () for e in chosen}
                names = {name for conditions in noted.values() for name in conditions}
                rows = {row.response for row in store.trials() if row.condition in names}
                begun = len(rows) - len(store.responses(sorted(rows)))  # what was begun is known exactly
                left = begun + usable * config.prompts.per_direction * sum(arms[k] for k, c in noted.items() if not c)
                stages[1:] = [Stage("calibration", 0, 0), Stage("trials", left, left * limit)]
    tokens = sum(s.tokens for s in stages)
    calls = sum(s.responses for s in stages)
    return _plan(folder, config.judge, tuple(stages), stored, calls, limit, tokens / speed if speed else None)


def plan_judging(folder: Path, settings: JudgeSettings, responses: int, tokens: int) -> Plan:
    """Plan judging ``responses`` that hold ``tokens`` tokens in all."""
    return _plan(folder, settings, (), responses, responses, tokens // max(1, responses), None)


def _plan(
    folder: Path,
    judge: JudgeSettings,
    stages: tuple[Stage, ...],
    stored: int,
    calls: int,
    response_tokens: int,
    seconds: float | None,
) -> Plan:
    given, answered = 0, 0
    if judge.name != "rule":
        path = folder / judge.rubric if judge.rubric else Path(str(files("esr.judging") / "rubric.md"))
        try:
            rubric = len(path.read_text(encoding="utf-8")) // CHARACTERS_PER_TOKEN
        except OSError as error:
            raise UserError("the rubric can be read", f"{error.strerror}: {path}") from None
        given, answered = calls * (rubric + PROMPT_TOKENS + response_tokens), calls * VERDICT_TOKENS
    known = price(folder, judge.name)
    dollars = None if known is None else (given * known[0] + answered * known[1]) / 1e6
    return Plan(stages, stored, judge.name, calls, given, answered, dollars, seconds)


def price(folder: Path, judge: str) -> tuple[float, float] | None:
    """Dollars per million input and output tokens of a judge, or None."""
    prices: dict[str, tuple[float, float]] = {}
    for path in (Path(str(files("esr.studies") / "prices.toml")), folder / "prices.toml"):
        if path.exists():
            try:
                prices |= {k: (float(v[0]), float(v[1])) for k, v in tomllib.loads(path.read_text())["prices"].items()}
            except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(
                    "prices.toml has a table [prices] of NAME = [input, output]", f"{error} in {path}"
                ) from None
    matching = [name for name in prices if judge.startswith(name)]
    return prices[max(matching, key=len)] if matching else None


def check_cost(plan: Plan, max_cost: float | None) -> None:
    """Raises UserError when the plan may cost more than ``max_cost`` dollars, or its cost is not known."""
    if max_cost is None:
        return
    if plan.dollars is None:
        raise UserError(
            "a cost limit needs the judge's price", f"none known for {plan.judge}", "Add it to prices.toml in the study"
        )
    if plan.dollars > max_cost:
        raise UserError(
            f"judging costs at most --max-cost {max_cost:.2f} dollars", f"about {plan.dollars:.2f}",
            "Raise the limit, judge a sample ([judge] cover), or choose a cheaper judge",
        )  # fmt: skip
