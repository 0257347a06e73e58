"""Which directions a study steers with: candidates, exclusions (all counted), a deterministic sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.directions.concreteness import ConcretenessGrader, RuleGrader, at_least, upper_half
from esr.directions.efficacy import Efficacy, efficacy
from esr.directions.promotion import restart_promotion, restart_token_ids
from esr.directions.relevance import paper_rule, released_rule
from esr.errors import UserError
from esr.steering.interventions import Direction
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.gate import next_batch
from esr.studies.grid import Cell, content_key, draw_cells, generator
from esr.studies.measure import Measured, Measurer
from esr.subjects.latents import check_latent

PROMOTED_AT = 3.0
"""A direction counts as promoting restart words from this many standard deviations of its logit effects on."""


@dataclass(frozen=True)
class Exclusion:
    """How many candidates one rule left out."""

    step: str
    rule: str
    excluded: int
    left: int


@dataclass(frozen=True)
class Chosen:
    """One direction of the study, with the columns every table shows."""

    id: str
    latent: int | None
    """None for a vector from a file."""
    label: str
    concreteness: float
    """0-100, by the grader's rule; NaN where labels were not graded."""
    promotion: float
    """Standard deviations (see ``esr.directions.promotion``)."""
    promoted: bool
    efficacy_drop: float
    """Points of score lost at the most effective boost tried; NaN without the gate."""


@dataclass(frozen=True)
class Selection:
    """The study's directions and how they were found."""

    chosen: tuple[Chosen, ...]
    exclusions: tuple[Exclusion, ...]
    unsteered_score: float | None
    """Mean first-attempt score of the unsteered responses; None when none was scored."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        """The inverse of ``to_json``."""
        return cls(
            tuple(Chosen(**c) for c in data["chosen"]),
            tuple(Exclusion(**e) for e in data["exclusions"]),
            data["unsteered_score"],
        )


class Candidates:
    """Everything that could be steered with: SAE latents or the vectors of a file."""

    def __init__(self, asker: Asker, folder: Path) -> None:
        settings, subject = asker.config.directions, asker.subject
        self._subject = subject
        self._vectors: dict[str, NDArray[np.float32]] | None = None
        if settings.vectors is not None:
            from esr.subjects.vectors import read_vectors

            self._vectors = read_vectors(folder / settings.vectors, d_model=subject.d_model)
            self.ids = list(range(len(self._vectors)))
        elif settings.latents is not None:
            d_sae = subject.require_reader().d_sae
            self.ids = sorted({check_latent(latent, d_sae) for latent in settings.latents})
        else:
            self.ids = list(range(subject.require_reader().d_sae))

    @property
    def hashes(self) -> dict[str, str]:
        """What the settings name but do not hold: the numbers of a vectors file. Latents are part of the weights."""
        if self._vectors is None:
            return {}
        return {"vectors": content_key([(d.id, d.digest) for d in map(self.direction, self.ids)])}

    @property
    def are_latents(self) -> bool:
        """Whether candidates are SAE latents, so that relevance can be read."""
        return self._vectors is None

    def label(self, i: int) -> str:
        """What the candidate is said to mean, or an empty text."""
        return self._subject.labels.get(i, "") if self._vectors is None else list(self._vectors)[i]

    def by_id(self, direction_id: str) -> Direction:
        """The direction with this id, ``latent:7`` or ``vector:name``."""
        name = direction_id.partition(":")[2]
        return self.direction(int(name) if self._vectors is None else list(self._vectors).index(name))

    def direction(self, i: int) -> Direction:
        """The candidate as something to steer with."""
        if self._vectors is None:
            vector = self._subject.require_reader().direction(i)
            return Direction(f"latent:{i}", vector, self.label(i))
        return Direction(f"vector:{self.label(i)}", self._vectors[self.label(i)], self.label(i))


def baseline_tasks(asker: Asker) -> list[Any]:
    """Unsteered responses to every prompt: for relevance and the unsteered score."""
    per_prompt = asker.config.directions.baseline_per_prompt
    cells = [
        Cell(0, prompt, int(generator(asker.config.seed, "baseline", prompt, k).integers(2**31)))
        for prompt in range(len(asker.prompts))
        for k in range(per_prompt)
    ]
    return [asker.task("baseline", Condition("baseline"), cell, None, 0.0) for cell in cells]


def select(
    asker: Asker,
    measurer: Measurer,
    candidates: Candidates,
    baseline: list[Measured],
    grader: ConcretenessGrader | None = None,
) -> Selection:
    """Apply the study's rules in order: relevance, concreteness, promotion, then a seeded sample that passes the
    efficacy gate. ``grader`` grades labels; default: by rule. Raises UserError when nothing is left."""
    settings, seed = asker.config.directions, asker.config.seed
    exclusions: list[Exclusion] = []
    left = candidates.ids

    def keep(step: str, rule: str, kept: set[int]) -> None:
        nonlocal left
        after = [i for i in left if i in kept]
        exclusions.append(Exclusion(step, rule, len(left) - len(after), len(after)))
        left = after
        if not left:
            raise UserError(
                "at least one direction passes the rules", f"none left after {step}: {rule}", "Loosen [directions]"
            )

    keep("dead", "a vector of length 0", {i for i in left if np.any(candidates.direction(i).vector)})
    if settings.relevance != "none" and candidates.are_latents:
        keep("relevance", *_relevance(asker, measurer, baseline))
    concreteness: dict[int, float] = {}
    if settings.concreteness != "none":
        labels = [candidates.label(i) for i in left]
        if not any(labels):
            raise UserError(
                "concreteness is graded from labels", f"none for {len(left)} candidates",
                'Set subject.labels, or concreteness = "none"',
            )  # fmt: skip
        grader = grader or RuleGrader()
        grades = grader.grade(labels)
        concreteness = dict(zip(left, grades, strict=True))
        if settings.concreteness == "paper":
            keep("concreteness", f"upper half by label (paper), graded by {grader.name}", upper_half(concreteness))
        else:
            minimum = settings.concreteness_minimum
            keep(
                "concreteness",
                f"label at least {minimum:g} of 100 (released code), graded by {grader.name}",
                at_least(concreteness, minimum),
            )
    promotion: dict[int, float] = {}
    if settings.exclude_promoted:
        promotion = _promotion(asker, candidates, left)
        kept = {i for i in left if promotion[i] < PROMOTED_AT}
        keep("promotion", f"raises restart words by {PROMOTED_AT:g} sd or more", kept)

    scores = [m.first_score for m in baseline if m.first_score is not None]
    unsteered = float(np.mean(scores)) if scores else None
    order = [int(i) for i in generator(seed, "directions").permutation(left)]
    gate = _gate(asker, measurer, candidates, order, unsteered) if settings.efficacy_boosts else None
    if gate is not None:
        passed = [i for i in order if i in gate and gate[i].passed][: settings.count]
        failed = sum(not e.passed for e in gate.values())
        rule = f"score falls by {settings.efficacy_drop:g} or more at a boost of {_listed(settings.efficacy_boosts)}"
        exclusions.append(Exclusion("efficacy", rule, failed, len(left) - failed))
        if not passed:
            raise UserError(
                "at least one direction moves the score",
                f"none of {len(gate)} tried",
                "Raise efficacy_boosts",
            )
    else:
        passed = order[: settings.count]
    unsampled = exclusions[-1].left - len(passed) if exclusions else len(left) - len(passed)
    exclusions.append(Exclusion("sample", f"{settings.count} asked for", unsampled, len(passed)))
    promotion = promotion or _promotion(asker, candidates, passed)
    chosen = tuple(
        Chosen(
            id=candidates.direction(i).id,
            latent=i if candidates.are_latents else None,
            label=candidates.label(i),
            concreteness=concreteness.get(i, float("nan")),
            promotion=promotion[i],
            promoted=promotion[i] >= PROMOTED_AT,
            efficacy_drop=gate[i].largest_drop if gate else float("nan"),
        )
        for i in passed
    )
    return Selection(chosen, tuple(exclusions), unsteered)


def _promotion(asker: Asker, candidates: Candidates, wanted: list[int]) -> dict[int, float]:
    vectors = np.stack([candidates.direction(i).vector for i in wanted])
    found = restart_promotion(asker.subject, vectors, restart_token_ids(asker.subject))
    return dict(zip(wanted, found.tolist(), strict=True))


def _listed(boosts: tuple[float, ...]) -> str:
    return " or ".join(f"{b:g}" for b in boosts)


def _relevance(asker: Asker, measurer: Measurer, baseline: list[Measured]) -> tuple[str, set[int]]:
    settings = asker.config.directions
    if settings.relevance == "paper":
        spans = [
            (m.task.request.prompt_ids + m.response.token_ids, len(m.task.request.prompt_ids))
            for m in baseline
            if m.response.token_ids
        ]
        if not spans:
            raise UserError("unsteered responses hold text, so that relevance can be read", "only empty ones")
        maxima = np.stack(list(measurer.engine.max_activations((ids, start, len(ids)) for ids, start in spans)))
        kept = paper_rule(maxima, settings.relevance_drop)
        rule = f"{settings.relevance_drop} latents most active on unsteered responses (paper)"
    else:
        prompts = {m.task.prompt_index: m.task.request.prompt_ids for m in baseline}
        maxima = np.stack(list(measurer.engine.max_activations((ids, 0, len(ids)) for ids in prompts.values())))
        kept = released_rule(maxima)
        rule = "active on some prompt (released code)"
    return rule, set(np.flatnonzero(kept).tolist())


def _gate(
    asker: Asker, measurer: Measurer, candidates: Candidates, order: list[int], unsteered: float | None
) -> dict[int, Efficacy]:
    """Try candidates in their random order, a batch at a time, until enough have passed."""
    if unsteered is None:
        raise UserError("the efficacy gate needs a scored unsteered response", "all of them unscored")
    settings, seed = asker.config.directions, asker.config.seed
    tried: dict[int, Efficacy] = {}
    while (passed := sum(e.passed for e in tried.values())) < settings.count and len(tried) < len(order):
        batch = order[len(tried) : len(tried) + next_batch(settings, passed)]
        directions = {i: candidates.direction(i) for i in batch}
        tasks = []
        for i in batch:
            cells = draw_cells(seed, "efficacy", [directions[i].id], len(asker.prompts), settings.efficacy_prompts)
            tasks += [
                asker.task("efficacy", Condition("efficacy"), cell, directions[i], boost, share_of_length=0.5)
                for boost in settings.efficacy_boosts
                for cell in cells
            ]
        scores: dict[str, dict[float, list[float]]] = {}
        for m in measurer.measure("directions", tasks):
            if m.first_score is not None:
                scores.setdefault(m.task.direction, {}).setdefault(m.task.boost, []).append(m.first_score)
        for i in batch:
            tried[i] = efficacy(scores.get(directions[i].id, {}), unsteered, settings.efficacy_drop)
    return tried
