import math

import pytest

from esr.reporting import numbers


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0.0, "0.0 %"),
        (0.3179, "31.8 %"),
        (1.0, "100.0 %"),
        (0.0004, "0.04 %"),
        (0.9997, "99.97 %"),
        (math.nan, "undefined"),
    ],
)
def test_percent(rate, shown):
    assert numbers.percent(rate) == shown


def test_signed_numbers_use_a_true_minus():
    assert numbers.percent_points(-0.123) == "−12.3 pp"
    assert numbers.points(4.0, signed=True) == "+4.0"
    assert numbers.points(-0.04, signed=True) == "+0.0"
    assert numbers.points(-0.04) == "0.0"
    assert numbers.percent_points(-0.0001) == "+0.0 pp"
    assert numbers.span(-1.0, 2.0, signed=True) == "−1.0 to +2.0"


def test_undefined_is_never_0():
    nan = math.nan
    assert {f(nan) for f in (numbers.points, numbers.percent_points, numbers.times, numbers.p_value)} == {"undefined"}
    assert numbers.span(nan, nan) == numbers.times_span(nan, nan) == ""


def test_infinite_ends():
    assert numbers.times_span(1.5, math.inf) == "1.50 to ∞"


def test_p_is_never_written_as_0():
    assert [numbers.p_value(p) for p in (0.0, 1e-5, 0.0123, 0.5)] == ["<0.001", "<0.001", "0.012", "0.50"]


def test_durations():
    assert [numbers.duration(s) for s in (4.21, 59.99, 185, 7620)] == ["4.2 s", "60.0 s", "3 min 05 s", "2 h 07 min"]
