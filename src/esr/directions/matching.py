"""Random latents to compare detectors with: as frequent and as strong on the same text.

If ablating detectors lowers a rate, would any latents have done? The answer needs latents that are on as often
(density, the share of tokens at which a latent is active) and as strongly (its mean activation there), or ablating them
would change less to begin with. Both are compared on a log scale, in standard deviations over the living latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError


@dataclass(frozen=True)
class MatchedSet:
    """One random set and how well it matches, in standard deviations over all living latents."""

    latents: tuple[int, ...]
    """In the order of the targets: latents[i] was drawn for targets[i]."""
    density_difference: float
    """Mean of log density, set minus targets."""
    magnitude_difference: float
    """Mean of log mean activation when active, set minus targets."""
    mean_distance: float
    """Mean over the targets of the distance to the latent drawn for it."""
    max_distance: float
    shared: int
    """Latents that another set holds too; 0 where the dictionary allows."""


def random_sets(
    targets: Sequence[int],
    density: NDArray[np.float64],
    mean_active: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    sets: int = 3,
    nearest: int = 12,
    exclude: Iterable[int] = (),
) -> list[MatchedSet]:
    """``sets`` random sets of as many latents as there are targets, matched one to one.

    density, mean_active: of every latent over the same text, [latents]; a latent of density 0 is dead. Targets come in
    random order, and each draws for every set one of the ``nearest`` latents not yet taken. Never drawn: targets, dead
    latents and those of ``exclude``. The sets share no latent while that leaves enough for all of them; else a
    latent is drawn once per set at most. A target that is itself dead is matched with the least active.

    Raises UserError for no target, a target twice or unknown, or too few candidates for one set.
    """
    if not targets or len(set(targets)) < len(targets) or not all(0 <= t < len(density) for t in targets):
        raise UserError(f"targets are distinct latents in 0..{len(density) - 1}, one at least", list(targets))
    alive = (density > 0) & (mean_active > 0)
    allowed = alive.copy()
    allowed[[*targets, *exclude]] = False
    candidates = np.flatnonzero(allowed)
    if len(candidates) < len(targets):
        raise UserError(
            f"the dictionary holds {len(targets)} other latents that are active on the text, to draw a random set from",
            len(candidates),
            "Use fewer detectors, more text or a wider SAE",
        )
    features = _standardised(density, mean_active, alive)
    disjoint = len(candidates) >= sets * len(targets)
    free = np.ones((sets, len(candidates)), dtype=bool)
    drawn = np.zeros((sets, len(targets)), dtype=np.int64)
    for position in rng.permutation(len(targets)):
        distance = np.linalg.norm(features[candidates] - features[targets[position]], axis=1)
        for one in range(sets):
            near = np.flatnonzero(free[one])
            near = near[np.argsort(distance[near], kind="stable")[:nearest]]
            found = int(rng.choice(near))
            drawn[one, position] = candidates[found]
            free[slice(None) if disjoint else one, found] = False
    return [_measured(row, drawn, targets, features) for row in drawn]


def _standardised(
    density: NDArray[np.float64], mean_active: NDArray[np.float64], alive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Log density and log mean activation, [latents, 2], less their means over the living and over their standard
    deviations; a dead latent counts as the least active one."""
    columns = []
    for values in (density, mean_active):
        logs = np.log(np.maximum(values, values[alive].min()))
        spread = float(logs[alive].std())
        columns.append((logs - logs[alive].mean()) / (spread if spread > 0 else 1.0))
    return np.stack(columns, axis=1)


def _measured(
    row: NDArray[np.int64], drawn: NDArray[np.int64], targets: Sequence[int], features: NDArray[np.float64]
) -> MatchedSet:
    gaps = features[row] - features[list(targets)]
    distances = np.linalg.norm(gaps, axis=1)
    density_difference, magnitude_difference = gaps.mean(axis=0).tolist()
    shared = sum(int(np.count_nonzero(drawn == latent)) > 1 for latent in row)
    return MatchedSet(
        tuple(row.tolist()),
        density_difference,
        magnitude_difference,
        float(distances.mean()),
        float(distances.max()),
        shared,
    )
