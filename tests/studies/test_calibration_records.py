"""Settings, probes and rounds refuse what cannot work, each in its own words."""

import subprocess
import sys

import pytest

from esr.errors import UserError
from esr.studies.calibration.calibrator import make_calibrator
from esr.studies.calibration.records import CalibrationSettings, Probe
from esr.studies.calibration.rounds import Round


def settings(**changes):
    return CalibrationSettings(**({"upper": 560, "prior_mean": 280, "prior_sd": 280} | changes))


def test_published_settings_are_the_defaults():
    s = settings()
    assert (s.target, s.rounds, s.repeats, s.sign_weight, s.lower) == (30, 10, 5, 5, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target": 0}, "target score lies between 0 and 100. Got 0"),
        ({"target": 100}, "target score lies between 0 and 100"),
        ({"lower": -1}, "0 <= lower < upper. Got lower -1, upper 560"),
        ({"lower": 560}, "0 <= lower < upper"),
        ({"prior_mean": 600}, r"prior mean lies between the bounds. Got 600 for \[0, 560\]"),
        ({"prior_sd": 0}, "prior_sd is greater than 0"),
        ({"tolerance": -1.0}, "tolerance is greater than 0. Got -1.0"),
        ({"sign_weight": 0}, "sign_weight is greater than 0"),
        ({"rounds": 0}, "rounds is at least 1. Got 0"),
        ({"repeats": 0}, "repeats is at least 1"),
        ({"upper": float("inf")}, "upper is a finite number. Got inf"),
        ({"prior_mean": float("nan")}, "prior_mean is a finite number. Got nan"),
    ],
)
def test_impossible_settings(changes, text):
    with pytest.raises(UserError, match=text):
        settings(**changes)


def test_settings_are_frozen_and_refuse_unknown_fields():
    with pytest.raises(ValueError, match="frozen"):
        settings().target = 20
    with pytest.raises(ValueError, match="Extra inputs"):
        settings(treshold=3)
    with pytest.raises(ValueError, match="valid integer"):
        settings(rounds=2.5)


@pytest.mark.parametrize("method", ["bisection", "pooled"])
def test_no_direction_and_no_room_for_the_target(method):
    with pytest.raises(UserError, match=r"at least one direction. Got 0"):
        make_calibrator(settings(method=method), 0, 88)
    with pytest.raises(UserError, match=r"is 5% to 95% of the unsteered score. Got target 30, unsteered 25"):
        make_calibrator(settings(method=method), 3, 25)
    with pytest.raises(UserError, match=r"is 5% to 95% of the unsteered score. Got target 4, unsteered 100"):
        make_calibrator(settings(method=method, target=4), 3)
    with pytest.raises(UserError, match=r"unsteered score lies in 0..100. Got 120"):
        make_calibrator(settings(method=method), 3, 120)


def test_a_round_takes_each_probe_once_and_only_its_own():
    probe = Probe(0, 10.0, 0, 2)
    told = Round([probe, Probe(1, 10.0, 0, 2)])
    with pytest.raises(UserError, match="only probes of the current round"):
        told.tell(Probe(0, 10.5, 0, 2), [])
    with pytest.raises(UserError, match=r"at most `repeats` scores. Got 3"):
        told.tell(probe, [1, 2, 3])
    for bad in (-1, 101, float("nan")):
        with pytest.raises(UserError, match=r"a score lies in 0..100"):
            told.tell(probe, [bad])
    told.tell(probe, [2.0, 1.0])
    with pytest.raises(UserError, match="told once"):
        told.tell(probe, [1.0])
    assert not told.complete
    told.tell(told.open[0], [])
    assert told.complete
    assert [scores for _, scores in told.told()] == [(1.0, 2.0), ()]


@pytest.mark.parametrize("method", ["bisection", "pooled"])
def test_results_of_an_unfinished_calibration(method):
    with pytest.raises(UserError, match=r"has results when it is finished. Got .* probes of round 0 still open"):
        make_calibrator(settings(method=method), 2, 88).results()


def test_calibration_does_not_import_torch():
    code = "import sys, esr.studies.calibration.calibrator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
