"""From divergence curves to hints: what next-token distributions under steering say about a direction's threshold.

A direction that moves the next-token distributions of unsteered responses early carries the answer off early. So the
log boost at which the total variation (``esr.steering.divergence``) reaches a level goes up with the log boost at which
the score has fallen by half; how steeply, and at which level most closely, is learnt from the directions' own scores
(``population``). On the organism the hint explains nine tenths of its variance (``benchmarks/surrogate.py``).
"""

from __future__ import annotations

import numpy as np

from esr.studies.calibration.curve import Float64

LEVELS = (0.15, 0.1, 0.2, 0.05, 0.3, 0.4)
"""Total variations, the one to begin with first: the best on the organism."""
_LEAST_GROWTH = 0.3  # of log variation per log boost, beyond the boosts read
_FURTHEST = 1.0  # log boost that a hint lies beyond the boosts read, at most


def surrogate_boosts(lower: float, upper: float, prior_mean: float, n: int) -> list[float]:
    """The boosts to read, evenly spaced in the log from an eighth of the prior mean up to the upper bound."""
    boosts = np.geomspace(max(lower, prior_mean / 8), upper, n)
    return [float(f"{b:.6g}") for b in boosts]


def hints(boosts: Float64, variation: Float64) -> Float64:
    """Log boost at which each direction's curve reaches each of ``LEVELS``: shape [levels, n].

    Args:
        boosts: rising, > 0, shape [boosts], at least 2.
        variation: mean total variation per direction and boost, shape [n, boosts].

    Interpolated between the logs; a curve that falls again counts with its maximum so far; beyond the boosts read it
    goes on as it ends.
    """
    x, levels = np.log(boosts), np.log(LEVELS)
    y = np.maximum.accumulate(np.log(np.maximum(variation, 1e-9)), axis=1)
    found = np.empty((len(LEVELS), len(y)))
    for j, row in enumerate(y):
        rising = row + 1e-9 * np.arange(len(row))
        found[:, j] = np.interp(levels, rising, x)
        first = max(_LEAST_GROWTH, (row[1] - row[0]) / (x[1] - x[0]))
        last = max(_LEAST_GROWTH, (row[-1] - row[-2]) / (x[-1] - x[-2]))
        below, above = levels < row[0], levels > row[-1]
        found[below, j] = x[0] - np.minimum((row[0] - levels[below]) / first, _FURTHEST)
        found[above, j] = x[-1] + np.minimum((levels[above] - row[-1]) / last, _FURTHEST)
    return found
