"""What a run will take before it is run: responses, tokens, judge calls, money. Upper bounds, with their basis, and
what is expected where that is less."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from esr.errors import UserError
from esr.judging.records import Scored
from esr.steering.engine import Response
from esr.studies.conditions import CONTROL
from esr.studies.config import JudgeSettings, StudyConfig
from esr.studies.experiments.registry import Experiment, wanted
from esr.studies.gate import most_candidates, next_batch
from esr.studies.grading import Budget
from esr.studies.judges import Coverage, make_judge, recorded_coverage
from esr.studies.prompts import study_prompts
from esr.studies.store import Store, TrialRow

CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; other languages need more tokens."""
VERDICT_TOKENS = 90
"""Output of one verdict: the form around one or two quotes of up to 12 words."""
PROMPT_TOKENS = 40
"""A how-to question in its chat template."""
_ENOUGH = 8
"""Responses of a stage that tell how long another of it takes."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    responses: int
    """Responses still to generate, at most."""
    expected: int
    """As many of them are expected: fewer where the efficacy gate ends because enough candidates have passed."""
    tokens: int
    """New tokens at most: every response at its limit."""
    judged: bool = True


@dataclass(frozen=True)
class Part:
    """What one experiment still takes."""

    experiment: str
    responses: int
    exact: bool
    """Whether that is known exactly; else it is an upper bound."""


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
    """At the speed of this study so far, for responses as long as those so far; None before it has generated
    anything."""
    parts: tuple[Part, ...] = ()
    """The stages ``trials`` and ``reading``, by experiment."""
    waiting: int = 0
    """Stored responses of these experiments that the judge is still to judge; part of ``judge_calls``."""
    gate: str = ""
    """What the bound of the efficacy gate rests on; empty when it has nothing to do."""
    bounded: bool = True
    """Whether there is such a bound; else the gate counts as what is expected, and nothing here is a bound."""
    surrogate_passes: int = 0
    """Forward passes of the surrogate, each over a prompt and half a response at most: neither generated nor judged."""

    @property
    def responses(self) -> int:
        """Responses of all stages, at most."""
        return sum(stage.responses for stage in self.stages)

    @property
    def responses_in_words(self) -> str:
        """``at most 576``; ``about 256, at most 1024``; ``about 256`` where there is no bound."""
        return self._in_words(self.responses)

    @property
    def calls_in_words(self) -> str:
        """Judge calls, as ``responses_in_words``."""
        return self._in_words(self.judge_calls)

    def _in_words(self, most: int) -> str:
        if not self.bounded:
            return f"about {most}"
        fewer = sum(stage.responses - stage.expected for stage in self.stages)
        return f"about {most - fewer}, at most {most}" if fewer else f"at most {most}"


def plan_run(folder: Path, config: StudyConfig, experiments: Sequence[str]) -> Plan:
    """Plan the missing part of a run. Raises UserError as a run would for settings, experiments and prompts."""
    prompts = len(study_prompts(config.prompts.file, folder, config.subject.model))
    d, c = config.directions, config.calibration
    limit, half = config.sampling.max_new_tokens, max(1, round(config.sampling.max_new_tokens / 2))
    chosen = wanted(experiments, sae=config.subject.sae is not None)
    baseline = prompts * d.baseline_per_prompt
    searched = d.count * c.rounds * c.repeats
    calibration = Stage("calibration", searched, searched, searched * half)
    known = _Known(cells=d.count * config.prompts.per_direction)
    passes = d.count * c.surrogate_boosts * min(c.surrogate_texts, baseline) if c.surrogate else 0
    stored, work, selected = 0, [], False
    if (folder / "study.sqlite").exists():
        with Store.reading(folder) as store:
            work = store.stages()
            stored = sum(s[3] for s in work)
            selected = store.record("selection", config.selection_key()) is not None
            if store.records("surrogate"):
                passes = 0
            if (found := store.record("calibration", "all")) is not None:
                calibration, passes = Stage("calibration", 0, 0, 0), 0
                usable = sum(row["threshold"] is not None for row in found)
                cells = usable * config.prompts.per_direction
                judge = make_judge(config.judge, config.subject, folder)
                coverage = recorded_coverage(store, judge) or Coverage.of(config.judge)  # as the run takes it
                known = _known(store, cells, [e.key for e in chosen], judge.key, coverage)
    directions, gate, bounded = Stage("directions", 0, 0, 0), "", True
    if not selected:
        each = len(d.efficacy_boosts) * d.efficacy_prompts
        most, gate = most_candidates(folder, config) if each else (0, "")
        bounded, first = most is not None, next_batch(d, passed=0)
        most = first if most is None else most
        tried, expected = most * each, min(most, first) * each
        directions = Stage("directions", baseline + tried, baseline + expected, baseline * limit + tried * half)
    trials = [_part(e, folder, config, known) for e in chosen]
    read = [
        Part(e.key, 0 if e.key in known.worked else e.reads(folder, config, config.settings_of(e.key)), True)
        for e in chosen
        if e.reads is not None
    ]
    left, unjudged = sum(p.responses for p in trials), sum(p.responses for p in read)
    stages = [directions, calibration, Stage("trials", left, left, left * limit)]
    if unjudged:
        stages.append(Stage("reading", unjudged, unjudged, unjudged * limit, judged=False))
    calls = sum(s.responses for s in stages if s.judged) + known.waiting
    parts = [p for p in (*trials, *read) if p.responses]
    seconds = _seconds(stages, work, limit, half)
    plan = _plan(folder, config.judge, tuple(stages), stored, calls, limit, seconds, parts)
    return replace(plan, surrogate_passes=passes, waiting=known.waiting, gate=gate, bounded=bounded)


@dataclass(frozen=True)
class _Known:
    """What the study file says of experiments."""

    cells: int
    """Places of the grid."""
    calibrated: bool = False
    """Whether ``cells`` is more than an upper bound."""
    episodes: int | None = None
    """Steered responses with an explicit restart; None before all are judged."""
    begun: Mapping[str, int] = field(default_factory=dict)
    """Missing responses of the experiments that were begun."""
    worked: frozenset[str] = frozenset()
    """Experiments whose work is done."""
    waiting: int = 0
    """Stored responses of theirs that are in the judge's coverage and have no verdict."""


def _known(store: Store, cells: int, keys: Sequence[str], judge: str, coverage: Coverage) -> _Known:
    notes = {key: store.record("experiment", key) or {} for key in keys}
    begun, waiting = {}, set[str]()
    progress, unfinished = store.progress(judge), store.unfinished(judge)
    for key, noted in notes.items():
        if names := noted.get("controls"):
            starts = noted.get("starts", {})
            planned = sum(len(starts[name]) if name in starts else cells for name in names)
            stored = sum(progress[name][1] for name in names if name in progress)
            own = [(row, response) for row, response in unfinished if row.condition in names]
            # one that was stopped while it was prepared has trials that are not stored
            begun[key] = len({row.response for row, response in own if response is None}) + max(0, planned - stored)
            waiting |= {row.response for row, response in own if response and _in_coverage(row, response, coverage)}
    worked = frozenset(key for key in keys if store.record("result", key) is not None)
    steered = [row.response for row in store.trials(condition=CONTROL)]
    episodes = None
    if steered:
        for judge in store.records("judge"):
            grades = store.grades(steered, judge)
            if len(grades) == len(set(steered)):
                restarted = sum(isinstance(g, Scored) and g.explicit_restarts > 0 for g in grades.values())
                episodes = max(episodes or 0, restarted)
    return _Known(cells, True, episodes, begun, worked, len(waiting))


def _in_coverage(row: TrialRow, response: Response, coverage: Coverage) -> bool:
    """Whether a run has a stored response judged that was not, or that a narrower coverage left out."""
    seen = replace(response, text=response.text[row.origin.judged_from :])
    return coverage.weight((row.direction, row.prompt_index, row.seed), row.prompt, seen) > 0


def _part(experiment: Experiment, folder: Path, config: StudyConfig, known: _Known) -> Part:
    """The trials of one experiment. Known exactly once it was begun, or where every condition runs the whole grid."""
    if experiment.key in known.begun:
        return Part(experiment.key, known.begun[experiment.key], True)
    settings = config.settings_of(experiment.key)
    arms = experiment.arms_of(folder, config, settings)
    few = min(experiment.per_episode(settings), arms)
    most = known.cells if known.episodes is None else min(known.cells, known.episodes)
    exact = known.calibrated and experiment.whole_grid
    return Part(experiment.key, (arms - few) * known.cells + few * most, exact or not arms)


def _seconds(
    stages: Sequence[Stage], work: Sequence[tuple[str, float, int, int]], limit: int, half: int
) -> float | None:
    """Time for what is expected of the stages: a stage that has generated before goes on as it did; another at the
    study's speed, its responses as long, in shares of their limit, as those so far."""
    done = {name: (seconds, tokens, responses) for name, seconds, tokens, responses in work if responses}
    tokens, spent = sum(t for _, t, _ in done.values()), sum(s for s, _, _ in done.values())
    if not tokens or not spent:
        return None
    longest = sum(n * (half if name == "calibration" else limit) for name, (_, _, n) in done.items())
    total = 0.0
    for stage in stages:
        if stage.name in done and done[stage.name][2] >= _ENOUGH:
            total += stage.expected * done[stage.name][0] / done[stage.name][2]
        elif stage.responses:
            total += stage.tokens * stage.expected / stage.responses * min(1.0, tokens / longest) * spent / tokens
    return total


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
    parts: Sequence[Part] = (),
) -> Plan:
    given, answered = 0, 0
    if judge.name != "rule":
        path = folder / judge.rubric if judge.rubric else Path(str(files("esr.judging") / "rubric.md"))
        try:
            rubric = len(path.read_text(encoding="utf-8")) // CHARACTERS_PER_TOKEN
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError("the rubric can be read", f"{why}: {path}") from None
        given, answered = calls * (rubric + PROMPT_TOKENS + response_tokens), calls * VERDICT_TOKENS
    known = price(folder, judge.name)
    dollars = None if known is None else (given * known[0] + answered * known[1]) / 1e6
    return Plan(stages, stored, judge.name, calls, given, answered, dollars, seconds, tuple(parts))


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


def budget_of(folder: Path, judge: str, max_cost: float | None) -> Budget | None:
    """The limit to hold while a judge is at work; None without one. Raises UserError when its price is not known."""
    if max_cost is None:
        return None
    known = price(folder, judge)
    if known is None:
        raise _no_price(judge)
    return Budget(max_cost, known)


def _no_price(judge: str) -> UserError:
    rule, remedy = "a cost limit needs the judge's price", "Add it to prices.toml in the study"
    return UserError(rule, f"none known for {judge}", remedy)


def check_cost(plan: Plan, max_cost: float | None) -> None:
    """Raises UserError when the plan may cost more than ``max_cost`` dollars, or its cost is not known."""
    if max_cost is None:
        return
    if plan.dollars is None:
        raise _no_price(plan.judge)
    if not plan.bounded and plan.dollars:
        raise UserError(
            "a cost limit needs to know how many candidates the efficacy gate can try", plan.gate,
            "Name candidates ([directions] latents), or leave the limit out",
        )  # fmt: skip
    if plan.dollars > max_cost:
        raise UserError(
            f"judging costs at most --max-cost {max_cost:.2f} dollars", f"up to about {plan.dollars:.2f}",
            "Raise the limit, name fewer candidates ([directions] latents) where an efficacy gate tries them,"
            " judge a sample ([judge] cover), or choose a cheaper judge",
        )  # fmt: skip
