"""Where the next scores of a direction are best taken: the boosts that tell most about the mean score at the answer.

Under the posterior the mean shares at a few boosts have a covariance, and so has the share at the answer with them. One
score at boost b lowers the variance of the share at the answer by

    cov(answer, b)^2 / (var(b) + E[noise at b])        noise: dispersion * m (1 - m)

(the linear Bayes rule, exact for Gaussian beliefs). Scores are placed one at a time, each after the covariance was
updated for those before it, so that a round spreads over the fall where little is known and closes in where much is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from esr.studies.calibration.curve import CurveGrid, Float32, Float64

LEVELS: Float64 = np.linspace(0.08, 0.92, 13)
"""Expected shares at which a score may be taken: the candidates are the boosts where they are expected."""


def place(
    grid: CurveGrid, posterior: Float32, candidates: NDArray[np.int64], answer: int, dispersion: float, n: int
) -> list[int]:
    """Grid indices of the next ``n`` scores of one direction, in the order of their worth.

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
    chosen = []
    for _ in range(n):
        variance = np.diag(covariance) + noise
        best = int(np.argmax(covariance[-1] ** 2 / variance))
        chosen.append(int(places[best]))
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / variance[best]
    return chosen
