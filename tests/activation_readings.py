"""Small sets of readings around restarts, with a planted truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esr.analysis.activations import KINDS, Activations, Kind, Reading

LATENTS = (5, 7, 11)
GROUPS = {"detectors": (5, 7), "backtracking": (11,)}


def reading(values: Any, *, kind: Kind = "episode", episode: str = "e", direction: str = "d", **fields: Any) -> Reading:
    """A reading of ``values`` [tokens, latents]; a control's trial is named after its kind and episode."""
    array = np.asarray(values, dtype=np.float32)
    trial = episode if kind == "episode" else f"{kind} of {episode}"
    given = {"trial": trial, "restart": 0, "correction_end": 0, "end": len(array)} | fields
    return Reading(kind=kind, episode=episode, direction=direction, values=array, **given)


def random_readings(
    directions: int = 14, per: int = 2, *, seed: int = 0, controls: int = 1, kinds: Sequence[Kind] = KINDS
) -> list[Reading]:
    """``per`` episodes of each direction with ``controls`` controls of each kind. Latent 5 is high in all steered text
    before the restart, 7 is sparse, 11 rises only in episodes, at the restart.
    """
    generator = np.random.default_rng(seed)
    made = []
    for d in range(directions):
        for i in range(per):
            episode = f"latent:{d}/{i}"
            restart, phrase = int(generator.integers(4, 12)), int(generator.integers(2, 5))
            for kind in kinds:
                for copy in range(controls if kind != "episode" else 1):
                    tokens = int(generator.integers(18, 30))
                    cuts = {"restart": restart, "correction_end": restart + phrase}
                    named = {} if kind == "episode" else {"trial": f"{kind} {copy} of {episode}"}
                    values = _values(generator, kind, tokens, restart, phrase)
                    made.append(reading(values, kind=kind, episode=episode, direction=f"latent:{d}", **cuts, **named))
    return made


def activations(readings: Sequence[Reading]) -> Activations:
    """With ``LATENTS`` and ``GROUPS``."""
    return Activations(readings, LATENTS, GROUPS)


def _values(generator: np.random.Generator, kind: Kind, tokens: int, restart: int, phrase: int) -> NDArray[np.float64]:
    values = generator.exponential(0.2, (tokens, len(LATENTS)))
    values[:, 1] *= generator.random(tokens) < 0.2
    if kind != "unsteered":
        values[: restart if kind == "episode" else tokens, 0] += 1
    if kind == "episode":
        values[restart : restart + phrase, 2] += 2
    return values
