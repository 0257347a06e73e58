"""Intervals for an auc whose pairs share prompts and responses."""

from __future__ import annotations

import numpy as np

from esr.analysis.uncertainty import Floats, Interval, divide, ratio_interval
from esr.directions.detectors import placements
from esr.directions.pairs import Pairs, canonical

DRAWS = 2000


def auc_interval(pairs: Pairs, latent: int, *, seed: int, draws: int = DRAWS) -> Interval:
    """The 95 % interval of one latent's auc on these pairs.

    Prompts are drawn with replacement. A matched pair counts as often as its prompt is drawn, w; a mismatched one
    w + v - 1 times, v being how often its response's prompt is drawn: Owen's pigeonhole bootstrap (2007), w v, without
    its second-order term. What belongs to a pair alone is counted twice, so it errs towards too wide: 98 to 99.7 %
    coverage in ``tests/directions/test_directions_detectors.py``. Where fewer than ten prompts have a mismatched pair
    that overlaps with matched ones, the rule of ``esr.analysis.uncertainty`` for rates near 0 and 1 takes its place,
    with prompts as clusters. It does not know that a latent was chosen for its auc.
    """
    matched, mismatched = (values[:, latent].astype(np.float64) for values in (pairs.matched, pairs.mismatched))
    _, of = np.unique([canonical(prompt) for prompt in pairs.prompts], return_inverse=True)
    prompts = int(of.max()) + 1
    counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=draws)
    weights = counts.astype(np.float64)[:, of]
    drawn = weighted_auc(matched, mismatched, weights, weights + weights[:, pairs.other] - 1).clip(0, 1)
    placed = placements(matched[:, None], mismatched[:, None])[:, 0]
    sums, sizes = (np.asarray(np.bincount(of, weights), dtype=np.float64) for weights in (placed, None))
    return ratio_interval(sums, sizes, seed=seed, draws_of_ratio=drawn)


def weighted_auc(matched: Floats, mismatched: Floats, weights: Floats, other_weights: Floats) -> Floats:
    """The auc of [n] matched and [m] mismatched values under each draw's weights, [draws, n] and [draws, m]: [draws].
    NaN for a draw in which all weights of one kind are 0."""
    order = np.argsort(matched)
    until = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    below, or_equal = (np.searchsorted(matched[order], mismatched, side) for side in ("left", "right"))
    wins = other_weights * (until[:, below] + until[:, or_equal]) / 2
    return divide(wins.sum(axis=1), until[:, -1] * other_weights.sum(axis=1))
