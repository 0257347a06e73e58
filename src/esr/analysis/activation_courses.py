"""Time courses of groups of latents around the restart, per kind of response, with clustered bands.

Two alignments. In **tokens**, position 0 is the first token of the restart phrase, and a bin holds a fixed number of
tokens; responses that are too short for a bin do not contribute to it, so its ``n`` must be read with it. In
**normalised position**, the restart is at 1: the text before it is stretched to 0..1 and the rest to 1..2. There a
token covers its share of the axis and a bin is the mean over what it covers, so every response with text on a side
contributes to all bins of that side. Controls are aligned at the position of their episode's restart.

Bands are pointwise cluster bootstraps over directions. A band is undefined where fewer than ``MIN_ACTIVE`` directions
are active in a bin.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from esr.analysis.activation_regions import Resampling
from esr.analysis.activations import KINDS, Activations
from esr.analysis.uncertainty import DRAWS, LEVEL, Floats, divide, percentile_interval
from esr.errors import UserError

BINS = 50
"""As many as the published figure has (METHOD section 5)."""
MIN_ACTIVE = 6
"""The means drawn from k directions lie between their extremes, which enclose the true median with probability
1 - 2^(1 - k): at least 95 % from six on."""

COLUMNS = ("alignment", "group", "kind", "start", "stop", "mean", "low", "high", "n", "n_directions", "note")
"""``start`` and ``stop``: edges of the bin, in tokens from the restart or in normalised position; ``mean`` over
responses of the group's mean activation in the bin, with its band; ``n``: responses that contribute; ``note``: why a
value is NaN.
"""


def token_course(
    activations: Activations,
    *,
    window: int | None = None,
    bin_tokens: int | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Frame of ``COLUMNS``: one row per group, kind and bin of ``bin_tokens`` tokens, from ``window`` tokens before the
    restart to ``window`` after it (rounded down to whole bins).

    By default the window is the largest in which at least half of the episodes have text on either side, and bins are
    as narrow as gives at most ``BINS`` of them. Raises UserError for a window without a whole bin on either side.
    """
    readings = activations.readings
    if window is None:
        episodes = [r for r in readings if r.kind == "episode"]
        sides = ([r.restart for r in episodes], [r.end - r.restart for r in episodes])
        window = max(1, math.floor(min(np.median(side) for side in sides)))
    if bin_tokens is None:
        bin_tokens = max(1, math.ceil(2 * window / BINS))
    if not 1 <= bin_tokens <= window:
        raise UserError(
            "a time course has whole bins on either side of the restart", f"{bin_tokens} of {window} tokens"
        )
    half = window // bin_tokens
    groups = activations.group_weights()
    values = np.full((len(readings), 2 * half, groups.shape[1]), np.nan)
    for i, reading in enumerate(readings):
        bins = (np.arange(reading.end) - reading.restart) // bin_tokens + half
        inside = (bins >= 0) & (bins < 2 * half)
        counts = np.bincount(bins[inside], minlength=2 * half).astype(np.float64)
        sums = np.zeros(values.shape[1:])
        np.add.at(sums, bins[inside], reading.values[: reading.end][inside] @ groups)
        values[i] = divide(sums, counts[:, None])
    edges = bin_tokens * np.arange(-half, half + 1)
    return _course("tokens", activations, values, edges.astype(np.float64), seed=seed, draws=draws, level=level)


def normalised_course(
    activations: Activations, *, bins: int = BINS, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> pd.DataFrame:
    """Frame of ``COLUMNS``: one row per group, kind and bin of normalised position, half of them before the restart.

    Raises UserError for an odd or not positive number of bins.
    """
    if bins < 2 or bins % 2:
        raise UserError("a normalised time course has an even number of bins", bins)
    groups = activations.group_weights()
    values = np.full((len(activations.readings), bins, groups.shape[1]), np.nan)
    for i, reading in enumerate(activations.readings):
        series = reading.values[: reading.end] @ groups
        for first, side in ((0, series[: reading.restart]), (bins // 2, series[reading.restart :])):
            if len(side):
                values[i, first : first + bins // 2] = _stretch(len(side), bins // 2) @ side
    return _course("normalised", activations, values, np.linspace(0, 2, bins + 1), seed=seed, draws=draws, level=level)


def _stretch(tokens: int, bins: int) -> Floats:
    """[bins, tokens]: the share of each bin that each token covers when both divide the same length evenly."""
    token, edge = np.arange(tokens + 1) / tokens, np.arange(bins + 1)[:, None] / bins
    overlap = np.minimum(token[1:], edge[1:]) - np.maximum(token[:-1], edge[:-1])
    return np.asarray(np.maximum(0.0, overlap) * bins)


def _course(
    alignment: str, activations: Activations, values: Floats, edges: Floats, *, seed: int, draws: int, level: float
) -> pd.DataFrame:
    """``values`` [readings, bins, groups], NaN where a reading has no text in the bin."""
    resampling = Resampling.of(activations, seed=seed, draws=draws, level=level)
    kinds = np.array([r.kind for r in activations.readings])
    codes = resampling.codes([r.direction for r in activations.readings])
    rows = []
    for g, group in enumerate(activations.groups):
        for kind in KINDS:
            chosen = values[kinds == kind, :, g]
            has = ~np.isnan(chosen)
            sums = resampling.sums(np.where(has, chosen, 0.0), codes[kinds == kind])
            counts = resampling.sums(has.astype(np.float64), codes[kinds == kind])
            means = divide(sums.sum(axis=0), counts.sum(axis=0))
            sampled = divide(resampling.weights @ sums, resampling.weights @ counts)
            directions, active = (counts > 0).sum(axis=0), (sums > 0).sum(axis=0)
            for b in range(values.shape[1]):
                low, high, note = math.nan, math.nan, ""
                if not directions[b]:
                    note = f"no {kind} responses reach this bin"
                elif active[b] < MIN_ACTIVE:
                    note = f"no band: active in {active[b]} of {directions[b]} directions"
                else:
                    low, high = percentile_interval(sampled[:, b], int(directions[b]), level)
                ends, n = (float(edges[b]), float(edges[b + 1])), int(has[:, b].sum())
                row = (alignment, group, kind, *ends, float(means[b]), low, high, n, int(directions[b]), note)
                rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))
