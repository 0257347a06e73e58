"""Effect sizes and the signed-rank test, each of one latent or group over responses."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import wilcoxon

from esr.analysis.uncertainty import Floats


def cohen_d(a: Floats, b: Floats) -> float:
    """(mean a - mean b) / pooled standard deviation, which is the root of ((na - 1) var a + (nb - 1) var b) /
    (na + nb - 2) with n - 1 in the variances (Cohen 1988). NaN with fewer than two values on a side or no spread.
    """
    if min(len(a), len(b)) < 2:
        return math.nan
    pooled = ((len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)) / (len(a) + len(b) - 2)
    return float((np.mean(a) - np.mean(b)) / np.sqrt(pooled)) if pooled > 0 else math.nan


def cliffs_delta(a: Floats, b: Floats) -> float:
    """Share of all pairs (one of a, one of b) with a > b minus the share with a < b (Cliff 1993), in [-1, 1]; NaN when
    a side is empty.
    """
    if not (len(a) and len(b)):
        return math.nan
    ordered = np.sort(b)
    below, above = np.searchsorted(ordered, a, "left"), len(b) - np.searchsorted(ordered, a, "right")
    return float((below - above).sum() / (len(a) * len(b)))


def signed_rank(differences: Floats) -> tuple[float, float]:
    """SciPy's two-sided Wilcoxon signed-rank test: its statistic and p. Zeros are left out; exact for up to 50 pairs
    without zeros or ties, else the normal approximation. (NaN, NaN) when no difference differs from 0.
    """
    sizes = np.abs(differences[differences != 0])
    if not len(sizes):
        return math.nan, math.nan
    exact = len(differences) <= 50 and len(np.unique(sizes)) == len(differences)
    result = wilcoxon(differences, method="exact" if exact else "approx")
    return float(result.statistic), float(result.pvalue)
