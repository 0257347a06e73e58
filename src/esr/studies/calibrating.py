"""Find every direction's threshold: the calibrator asks, the measurer answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from esr.errors import UserError
from esr.steering.divergence import MEASURES
from esr.steering.interventions import Direction
from esr.studies.asking import Asker
from esr.studies.calibration.calibrator import make_calibrator
from esr.studies.calibration.records import Calibration
from esr.studies.calibration.surrogate import hints, surrogate_boosts
from esr.studies.conditions import Condition
from esr.studies.grid import draw_cells
from esr.studies.measure import Measurer
from esr.studies.selecting import baseline_tasks

CONDITION = Condition("calibration")
_SETS = 64  # sets of interventions read over a text at a time: what a replica is handed


def read_surrogate(
    asker: Asker, measurer: Measurer, directions: list[Direction], advance: Callable[[int], None]
) -> dict[str, Any]:
    """How far each boost of each direction moves the next tokens of the study's unsteered responses.

    Of the baseline's responses, ``surrogate_texts`` spread over the prompts are read, up to the length of a calibration
    answer; nothing is generated that the study does not have. Returns plain data for the store: boosts, and the mean
    total variation as ``variation[direction][boost]``. ``advance`` is told the forward passes done.
    Raises UserError when all unsteered responses are empty.
    """
    settings, condition = asker.config.calibration, CONDITION
    boosts = surrogate_boosts(settings.lower, settings.upper, settings.prior_mean, settings.surrogate_boosts)
    requests = [task.request for task in baseline_tasks(asker)]
    longest = max(1, round(asker.config.sampling.max_new_tokens / 2))
    responses = measurer.generate("directions", requests)
    texts = [
        replace(q, prefill_ids=r.token_ids[:longest]) for q, r in zip(requests, responses, strict=True) if r.token_ids
    ]
    if not texts:
        raise UserError("unsteered responses hold text, so that the surrogate can read them", "only empty ones")
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(settings.surrogate_texts, len(texts))).round().astype(int))
    sets = [
        asker.interventions(condition, direction, boost, condition.schedule)
        for direction in directions
        for boost in boosts
    ]
    starts = list(range(0, len(sets), _SETS))
    work = [(texts[i], sets[start : start + _SETS]) for i in chosen for start in starts]
    total = np.zeros(len(sets))
    for start, found in zip(starts * len(chosen), measurer.engine.divergences(work), strict=True):
        total[start : start + _SETS] += found[:, MEASURES.index("tv")]
        advance(len(found))
    variation = (total / len(chosen)).reshape(len(directions), len(boosts))
    return {"boosts": boosts, "variation": [[float(f"{v:.6g}") for v in row] for row in variation]}


def calibrate(
    asker: Asker,
    measurer: Measurer,
    directions: list[Direction],
    unsteered: float | None,
    surrogate: dict[str, Any] | None = None,
) -> list[Calibration]:
    """One calibration per direction, from half-length responses (published). ``surrogate``: see ``read_surrogate``.

    The calibrator is a pure function of the scores, and scores come from the store where it has them: a killed
    calibration continues where it was.
    """
    config = asker.config
    settings = config.calibration
    said = None if surrogate is None else hints(np.array(surrogate["boosts"]), np.array(surrogate["variation"]))
    calibrator = make_calibrator(settings, len(directions), unsteered, said)
    ids, budget = [d.id for d in directions], settings.rounds * settings.repeats
    cells = draw_cells(config.seed, "calibration", ids, len(asker.prompts), budget)
    # a direction's cells are handed out in turn over all its probes: many probes ask for one or two responses only
    queues = [cycle(cells[d * budget : (d + 1) * budget]) for d in range(len(directions))]
    while probes := calibrator.ask():
        tasks, owner = [], []
        for p, probe in enumerate(probes):
            direction = directions[probe.direction]
            for cell in islice(queues[probe.direction], probe.repeats):
                tasks.append(asker.task("calibration", CONDITION, cell, direction, probe.boost, share_of_length=0.5))
                owner.append(p)
        scores: list[list[float]] = [[] for _ in probes]
        for p, measured in zip(owner, measurer.measure("calibration", tasks), strict=True):
            if measured.first_score is not None:
                scores[p].append(measured.first_score)
        for probe, own in zip(probes, scores, strict=True):
            calibrator.tell(probe, own)
    return calibrator.results()


def to_json(results: list[Calibration]) -> list[dict[str, object]]:
    """Plain data for the store."""
    return [asdict(r) for r in results]


def from_json(data: list[dict[str, object]]) -> list[Calibration]:
    """The inverse of ``to_json``."""
    return [Calibration(**d) for d in data]  # type: ignore[arg-type]
