"""Find every direction's threshold: the calibrator asks, the measurer answers."""

from __future__ import annotations

from dataclasses import asdict
from itertools import cycle, islice

from esr.steering.interventions import Direction
from esr.studies.asking import Asker
from esr.studies.calibration.calibrator import make_calibrator
from esr.studies.calibration.records import Calibration
from esr.studies.conditions import Condition
from esr.studies.grid import draw_cells
from esr.studies.measure import Measurer

CONDITION = Condition("calibration")


def calibrate(
    asker: Asker, measurer: Measurer, directions: list[Direction], unsteered: float | None
) -> list[Calibration]:
    """One calibration per direction, from half-length responses (published).

    The calibrator is a pure function of the scores, and scores come from the store where it has them: a killed
    calibration continues where it was.
    """
    config = asker.config
    settings = config.calibration
    calibrator = make_calibrator(settings, len(directions), unsteered)
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
        for probe, found in zip(probes, scores, strict=True):
            calibrator.tell(probe, found)
    return calibrator.results()


def to_json(results: list[Calibration]) -> list[dict[str, object]]:
    """Plain data for the store."""
    return [asdict(r) for r in results]


def from_json(data: list[dict[str, object]]) -> list[Calibration]:
    """The inverse of ``to_json``."""
    return [Calibration(**d) for d in data]  # type: ignore[arg-type]
