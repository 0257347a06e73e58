"""How numbers are written in tables, figures and the report: one way each."""

from __future__ import annotations

import math

UNDEFINED = "undefined"


def percent(rate: float) -> str:
    """A rate in 0..1 as per cent with one decimal; two where the first would hide that it is not 0 or not 1."""
    if math.isnan(rate):
        return UNDEFINED
    value = 100 * rate
    return f"{value:.2f} %" if 0 < value < 0.1 or 99.9 < value < 100 else f"{value:.1f} %"


def points(value: float, *, signed: bool = False) -> str:
    """Score points with one decimal."""
    if math.isnan(value):
        return UNDEFINED
    value = round(value, 1) + 0.0  # or what rounds to 0 from below would be -0.0
    return _minus(f"{value:+.1f}" if signed else f"{value:.1f}")


def percent_points(difference: float) -> str:
    """A difference of two rates, signed, in percentage points."""
    return f"{points(100 * difference, signed=True)} pp" if not math.isnan(difference) else UNDEFINED


def span(low: float, high: float, *, scale: float = 1.0, signed: bool = False) -> str:
    """An interval as ``low to high``, one decimal; empty when there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    form = "{:+.1f}" if signed else "{:.1f}"
    ends = ["∞" if math.isinf(end) else _minus(form.format(scale * end)) for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def times(ratio: float) -> str:
    """A ratio, for example ``2.14 x``."""
    return UNDEFINED if math.isnan(ratio) else f"{ratio:.2f} ×"


def times_span(low: float, high: float) -> str:
    """The interval of a ratio, two decimals."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{low:.2f} to {'∞' if math.isinf(high) else f'{high:.2f}'}"


def p_value(p: float) -> str:
    """A p-value, never as 0."""
    if math.isnan(p):
        return UNDEFINED
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def significant(value: float, digits: int = 3) -> str:
    """A quantity of unknown size, such as a boost or a threshold, to three significant digits."""
    if math.isnan(value):
        return "none"
    return _minus(f"{value:.{digits}g}" if abs(value) < 10_000 else f"{value:,.0f}")


def duration(seconds: float) -> str:
    """Wall time: ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
