"""Random sets: whom they may hold, how close they come, and what is said about it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esr.directions.matching import random_sets
from esr.errors import UserError

N = 400
TARGETS = [3, 50, 120, 377]


def dictionary(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal densities and magnitudes; every tenth latent is dead."""
    rng = np.random.default_rng(seed)
    density, mean_active = np.exp(rng.normal(-5, 1.5, N)).clip(max=1), np.exp(rng.normal(1, 0.7, N))
    dead = np.arange(N) % 10 == 9
    return np.where(dead, 0, density), np.where(dead, 0, mean_active)


def draw(seed: int = 1, **options: object) -> list:
    return random_sets(TARGETS, *dictionary(), np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def test_sets_hold_no_dead_latent_no_target_and_nothing_twice() -> None:
    for seed in range(20):
        sets = draw(seed, sets=5, exclude=[7, 8])
        drawn = [latent for one in sets for latent in one.latents]
        assert len(sets) == 5
        assert all(len(one.latents) == 4 for one in sets)
        assert len(set(drawn)) == 20
        assert not set(drawn) & {*TARGETS, 7, 8}
        assert all(latent % 10 != 9 for latent in drawn)
        assert [one.shared for one in sets] == [0] * 5


def test_each_latent_is_among_the_nearest_of_its_target() -> None:
    """The slow way: distances in standard deviations of the living latents' logs."""
    density, mean_active = dictionary()
    alive = [i for i in range(N) if density[i] > 0]
    logs = {i: (math.log(density[i]), math.log(mean_active[i])) for i in alive}
    spreads = [np.std([logs[i][axis] for i in alive]) for axis in (0, 1)]

    def distance(i: int, j: int) -> float:
        return math.hypot(*((logs[i][axis] - logs[j][axis]) / spreads[axis] for axis in (0, 1)))

    (one,) = draw(sets=1, nearest=6)
    for target, latent in zip(TARGETS, one.latents, strict=True):
        order = sorted((i for i in alive if i not in TARGETS), key=lambda i: distance(i, target))
        assert latent in order[: 6 + len(TARGETS) - 1]  # up to three of the nearest may be taken
    distances = [distance(t, i) for t, i in zip(TARGETS, one.latents, strict=True)]
    assert one.max_distance == pytest.approx(max(distances))
    assert one.mean_distance == pytest.approx(np.mean(distances))
    gaps = [(logs[i][0] - logs[t][0]) / spreads[0] for t, i in zip(TARGETS, one.latents, strict=True)]
    assert one.density_difference == pytest.approx(np.mean(gaps))
    gaps = [(logs[i][1] - logs[t][1]) / spreads[1] for t, i in zip(TARGETS, one.latents, strict=True)]
    assert one.magnitude_difference == pytest.approx(np.mean(gaps))


def test_matched_sets_are_far_closer_than_any_latents() -> None:
    matched = np.mean([one.mean_distance for seed in range(10) for one in draw(seed)])
    anything = np.mean([one.mean_distance for seed in range(10) for one in draw(seed, nearest=N)])
    assert matched < 0.5
    assert anything > 1.2


def test_nearest_one_is_the_nearest_and_draws_differ_by_seed_only() -> None:
    density, mean_active = dictionary()
    density[200], mean_active[200] = density[50], mean_active[50]
    (one,) = random_sets([50], density, mean_active, np.random.default_rng(0), sets=1, nearest=1)
    assert one.latents == (200,)
    assert (one.max_distance, one.density_difference) == (0.0, 0.0)
    assert draw(4) == draw(4)
    assert draw(4) != draw(5)


def test_a_small_dictionary_shares_latents_between_sets_and_says_so() -> None:
    density, mean_active = np.linspace(0.1, 0.5, 9), np.linspace(1, 2, 9)
    sets = random_sets([0, 1, 2, 3], density, mean_active, np.random.default_rng(0), sets=3)
    for one in sets:
        assert len(set(one.latents)) == 4
        assert set(one.latents) <= {4, 5, 6, 7, 8}
        assert one.shared >= 3
    apart = random_sets([0], density, mean_active, np.random.default_rng(0), sets=8)
    assert sorted(one.latents[0] for one in apart) == list(range(1, 9))


def test_a_dead_target_counts_as_the_least_active() -> None:
    density, mean_active = dictionary()
    (one,) = random_sets([9], density, mean_active, np.random.default_rng(0), sets=1, nearest=1)
    distance = np.hypot(*(np.log(v[density > 0] / v[density > 0].min()) for v in (density, mean_active)))
    assert one.latents[0] in np.flatnonzero(density > 0)[np.argsort(distance)[:5]]
    assert math.isfinite(one.max_distance)


def test_latents_that_are_all_alike_match_perfectly() -> None:
    (one,) = random_sets([0], np.full(5, 0.1), np.full(5, 2.0), np.random.default_rng(0), sets=1)
    assert (one.max_distance, one.density_difference, one.magnitude_difference) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("targets", [[], [3, 3], [400], [-1]])
def test_targets_are_known_and_distinct(targets: list[int]) -> None:
    with pytest.raises(UserError, match=r"targets are distinct latents in 0\.\.399, one at least"):
        random_sets(targets, *dictionary(), np.random.default_rng(0))


def test_too_small_a_dictionary_is_refused() -> None:
    density = np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.1])
    with pytest.raises(UserError, match=r"2 other latents that are active on the text.* Got 1\. Use fewer detectors"):
        random_sets([0, 1], density, density, np.random.default_rng(0), exclude=[2])
    with pytest.raises(UserError, match="Got 0"):
        random_sets([0], np.zeros(4), np.zeros(4), np.random.default_rng(0))
