"""How often the improvement rates of two conditions that improve alike seem to differ, by how often they restart.

Run: python benchmarks/tests_over_restarts.py [STUDIES]     (default 300 studies a row, about a minute)
Simulated: 40 directions x 5 prompts, trials independent, the same improvement rate in both arms. A test that holds its
level rejects in at most 5 % of the studies. Beside the interval, from which the reported p is, the exchange of whole
directions, which holds its level for rates over the same trials, and not here.
"""

from __future__ import annotations

import sys

import numpy as np

from esr.analysis.paired import Contrast, exchange_p
from esr.analysis.uncertainty import bootstrap_sums

DIRECTIONS, PROMPTS, DRAWS = 40, 5, 1000


def main(studies: int) -> None:
    """Print the table."""
    print("| multi-attempt, both arms | improvement | restarts in the control | exchange rejects | interval rejects |")
    print(f"|{'---|' * 5}")
    generator = np.random.default_rng(1)
    for treated, control in ((0.6, 0.6), (0.6, 0.3), (0.6, 0.1), (0.6, 0.05), (0.2, 0.1), (0.2, 0.05)):
        for improved in (0.5, 0.85):
            exchanged, intervals, restarts = [], [], []
            for seed in range(studies):
                columns = _study(generator, (treated, control), improved)
                if columns[:, 3].sum() < 3:  # hardly a rate
                    continue
                restarts.append(columns[:, 3].sum())
                exchanged.append(exchange_p(columns, seed=seed, draws=DRAWS)[0] < 0.05)
                sampled = bootstrap_sums(columns, seed=seed, draws=DRAWS)
                found = Contrast(columns, None, sampled, (0.0, 1.0), seed).difference(0.95)
                intervals.append(found.low > 0 or found.high < 0)
            print(
                f"| {100 * treated:.0f}, {100 * control:.0f} % | {100 * improved:.0f} % | {np.mean(restarts):.0f}"
                f" | {100 * np.mean(exchanged):.1f} % | {100 * np.mean(intervals):.1f} % |",
                flush=True,
            )


def _study(generator: np.random.Generator, rates: tuple[float, float], improved: float) -> np.ndarray:
    """[directions, 4]: improved and multi-attempt responses of the treatment, then of the control."""
    columns = []
    for rate in rates:
        multi = generator.random((DIRECTIONS, PROMPTS)) < rate
        better = multi & (generator.random(multi.shape) < improved)
        columns += [better.sum(axis=1), multi.sum(axis=1)]
    return np.stack(columns, axis=1).astype(float)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
