"""Where the next scores are best taken: the boosts that tell most about the mean score at a direction's answer, and the
directions whose answers they tell most about.

Under the posterior the mean shares at a few boosts have a covariance, and so has the share at the answer with them. One
score at boost b lowers the variance of the share at the answer by

    cov(answer, b)^2 / (var(b) + E[noise at b])        noise: dispersion * m (1 - m)

(the linear Bayes rule, exact for Gaussian beliefs). Scores are placed one at a time, each after the covariance was
updated for those before it, so that a round spreads over the fall where little is known and closes in where much is.

A step has so many scores per direction on average. Dealt out by what each is worth they lower the mean squared error
over all directions most: who was lucky needs few, who was not gets more. One each is kept back from that, because a
posterior that is narrow at the wrong place is only found out by scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from esr.studies.calibration.curve import CurveGrid, Float32, Float64
from esr.studies.calibration.rounds import six_digits

LEVELS: Float64 = np.linspace(0.08, 0.92, 13)
"""Expected shares at which a score may be taken: the candidates are the boosts where they are expected."""


def place(
    grid: CurveGrid, posterior: Float32, candidates: NDArray[np.int64], answer: int, dispersion: float, n: int
) -> tuple[list[int], list[float]]:
    """Grid indices of the next ``n`` scores of one direction, in order, and what each is worth: by how much it lowers
    the variance of the share at the answer.

    posterior: [kinds, size]; candidates: grid indices within the bounds; answer: grid index of the boost that would be
    answered now.
    """
    places = np.append(candidates, answer)
    m = np.stack([grid.modelled(int(i)) for i in places]).reshape(len(places), -1)
    weighted = m * posterior.reshape(-1)
    mean = weighted.sum(axis=1, dtype=np.float64)
    second = weighted.astype(np.float64) @ m.T.astype(np.float64)  # as in `Population.learn`
    covariance = second - np.outer(mean, mean)
    noise = dispersion * np.maximum(mean - np.diag(second), 1e-4)
    chosen, worths = [], []
    for _ in range(n):
        variance = np.diag(covariance) + noise
        worth = covariance[-1] ** 2 / variance
        best = int(np.argmax(worth))
        chosen.append(int(places[best]))
        worths.append(float(worth[best]))
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / variance[best]
    return chosen, worths


def deal(worths: Sequence[Sequence[float]], total: int) -> list[int]:
    """How many of its next scores each direction gets: the first one, then those of most worth while any are left.

    worths: what each direction's next scores are worth, as many as it may get; total: scores for all directions.
    Worths count to six digits, and of equal ones the first direction's goes first, so that last bits decide nothing.
    """
    counts = [min(1, len(own)) for own in worths]
    ranked = sorted((-six_digits(worth), j) for j, own in enumerate(worths) for worth in own[1:])
    for _, j in ranked[: max(0, total - sum(counts))]:
        counts[j] += 1
    return counts
