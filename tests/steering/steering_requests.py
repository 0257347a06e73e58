"""Directions and mixed requests for the engine's tests."""

from __future__ import annotations

import numpy as np

from esr.steering.engine import Request, Sampling
from esr.steering.interventions import ALL, PROMPT_ONLY, RESPONSE_ONLY, Add, Clamp, Direction, Schedule

LAYER = 1
GREEDY = Sampling(temperature=0, max_new_tokens=12)


def direction(seed: int, d_model: int = 64) -> Direction:
    """A random unit-normal direction."""
    return Direction(f"random:{seed}", np.random.default_rng(seed).normal(size=d_model).astype(np.float32))


def mixed_requests(n: int, seed: int = 0) -> list[Request]:
    """Requests that differ in everything a row may differ in: prompt length, prefill, adds, clamps, layers, schedules,
    what clamps read, sampling and seed."""
    rng = np.random.default_rng(seed)
    schedules = [ALL, PROMPT_ONLY, RESPONSE_ONLY, Schedule.from_token(3), Schedule.until_token(4), Schedule(-2, 5)]
    requests = []
    for k in range(n):
        adds = [
            Add(
                direction(int(rng.integers(9))),
                float(rng.normal() * 2),
                int(rng.integers(4)),
                schedules[rng.integers(6)],
            )
            for _ in range(rng.integers(3))
        ]
        clamps = [
            Clamp(int(latent), float(rng.choice([0.0, 3.0])), LAYER, schedules[rng.integers(6)])
            for latent in rng.choice(96, size=rng.integers(4), replace=False)
        ]
        sampling = Sampling(
            temperature=float(rng.choice([0.0, 0.7, 1.3])),
            top_p=float(rng.choice([1.0, 0.8])),
            repetition_penalty=float(rng.choice([1.0, 1.2])),
            penalty_over=("all", "generated")[int(rng.integers(2))],
            max_new_tokens=int(rng.choice([6, 12])),
        )
        requests.append(
            Request(
                id=f"r{k}",
                prompt_ids=tuple(int(t) for t in rng.integers(8, 100, size=rng.choice([1, 5, 15, 16, 17, 30]))),
                prefill_ids=tuple(int(t) for t in rng.integers(8, 100, size=rng.integers(4))),
                interventions=(*adds, *clamps),
                sampling=sampling,
                seed=int(rng.integers(2**31)),
                clamp_reads=("incoming", "steered")[int(rng.integers(2))],
            )
        )
    return requests
