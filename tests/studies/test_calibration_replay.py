"""The same tells give the same asks and results: in any order within a round, and from any point of a killed study."""

import json
import random

import pytest

from esr.studies.calibration.calibrator import make_calibrator
from esr.studies.calibration.records import CalibrationSettings, Probe

DIRECTIONS = 6
CASES = [("bisection", 88.0), ("pooled", 88.0), ("pooled", None)]


def start(method, unsteered):
    s = CalibrationSettings(method=method, upper=50, prior_mean=10, prior_sd=10, rounds=6, repeats=4)
    return make_calibrator(s, DIRECTIONS, unsteered)


def scores(probe: Probe) -> list[float]:
    """What a judge says of this probe, a function of the probe alone; some generations are unscored."""
    rng = random.Random(repr(probe))
    share = 1 / (1 + (probe.boost / (6 + 2 * probe.direction)) ** 2)
    return [
        rng.gauss(80, 5) if rng.random() < share else rng.random() * 9 for _ in range(rng.randint(0, probe.repeats))
    ]


def finish(calibrator, rng=None):
    """Answer everything, each round in the order asked or shuffled. Returns the asks by round and the results."""
    asked = []
    while probes := calibrator.ask():
        asked.append(list(probes))
        if rng:
            rng.shuffle(probes)
        for probe in probes:
            told = scores(probe)
            if rng:
                rng.shuffle(told)
            calibrator.tell(probe, told)
    return asked, calibrator.results()


@pytest.mark.parametrize(("method", "unsteered"), CASES)
def test_order_within_a_round_leaves_no_trace(method, unsteered):
    straight = finish(start(method, unsteered))
    for seed in range(4):
        assert finish(start(method, unsteered), random.Random(seed)) == straight


@pytest.mark.parametrize(("method", "unsteered"), CASES)
def test_killed_anywhere_and_resumed_from_the_store(method, unsteered):
    """Every probe answered so far went through JSON; the new process asks in rounds and looks each probe up."""
    _, uninterrupted = finish(start(method, unsteered))
    for kill_after in (0, 1, 7, 13, 26):
        store, victim = {}, start(method, unsteered)
        while len(store) < kill_after and (probes := victim.ask()):
            probe = random.Random(len(store)).choice(probes)
            victim.tell(probe, scores(probe))
            store[json.dumps(vars(probe))] = json.dumps(scores(probe))
        resumed, regenerated = start(method, unsteered), 0
        while probes := resumed.ask():
            for probe in probes:
                if stored := store.get(json.dumps(vars(probe))):
                    resumed.tell(Probe(**json.loads(json.dumps(vars(probe)))), json.loads(stored))
                else:
                    regenerated += 1
                    resumed.tell(probe, scores(probe))
        assert resumed.results() == uninterrupted
        assert regenerated + len(store) == sum(len(asked) for asked in finish(start(method, unsteered))[0])


@pytest.mark.parametrize(("method", "unsteered"), CASES)
def test_probes_are_unique_and_within_bounds_and_all_generations_are_counted(method, unsteered):
    asked, results = finish(start(method, unsteered))
    probes = [p for round_ in asked for p in round_]
    assert len({(p.direction, p.round, p.boost) for p in probes}) == len(probes)
    assert all(0 <= p.boost <= 50 and p.repeats >= 1 for p in probes)
    assert all(p.round == number for number, round_ in enumerate(asked) for p in round_)
    for j, result in enumerate(results):
        assert result.generations == sum(p.repeats for p in probes if p.direction == j)


@pytest.mark.parametrize(("method", "unsteered"), CASES)
def test_a_told_probe_leaves_the_ask_and_the_others_stay(method, unsteered):
    calibrator = start(method, unsteered)
    probes = calibrator.ask()
    calibrator.tell(probes[2], scores(probes[2]))
    assert calibrator.ask() == probes[:2] + probes[3:]
