"""Mixed requests for the organism, and how two engines' answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from esr.steering.engine import Engine, Request, Response, Sampling
from esr.steering.interventions import ALL, PROMPT_ONLY, RESPONSE_ONLY, Add, Clamp, Direction, Intervention, Schedule

SCHEDULES = (ALL, PROMPT_ONLY, RESPONSE_ONLY, Schedule.from_token(3), Schedule.until_token(4), Schedule(-2, 5))


def direction(subject: Any, latent: int) -> Direction:
    """The decoder row of a latent."""
    return Direction(f"latent:{latent}", subject.reader.direction(latent))


def interventions(subject: Any, rng: np.random.Generator, layers: Sequence[int]) -> tuple[Intervention, ...]:
    """None, adds, clamps or both, at one layer or several, each with a schedule of its own. Boosts are such that the
    text changes and goes on."""
    adds = [
        Add(
            direction(subject, int(rng.integers(subject.reader.d_sae))),
            float(rng.choice([-6.0, 3.0, 6.0, 9.0])),
            int(rng.choice(layers)),
            SCHEDULES[rng.integers(len(SCHEDULES))],
        )
        for _ in range(rng.integers(3))
    ]
    clamps = [
        Clamp(
            int(latent),
            float(rng.choice([0.0, 4.0])),
            int(rng.choice(layers)),
            SCHEDULES[rng.integers(len(SCHEDULES))],
        )
        for latent in rng.choice(subject.reader.d_sae, size=rng.integers(4), replace=False)
    ]
    return (*adds, *clamps)


def mixed_requests(
    subject: Any,
    n: int,
    seed: int = 0,
    lengths: tuple[int, int] = (1, 40),
    new: Sequence[int] = (8, 24),
    **sampling: Any,
) -> list[Request]:
    """Requests that differ in everything a request may differ in; greedy unless ``sampling`` says otherwise."""
    rng = np.random.default_rng(seed)
    vocabulary = subject.model.get_input_embeddings().num_embeddings
    sampling = {"temperature": 0.0} | sampling

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(8, vocabulary, size=count))

    return [
        Request(
            id=f"r{k}",
            prompt_ids=tokens(int(rng.integers(*lengths))),
            prefill_ids=tokens(int(rng.integers(4))),
            interventions=interventions(subject, rng, range(subject.n_layers)),
            sampling=Sampling(
                repetition_penalty=float(rng.choice([1.0, 1.2])), max_new_tokens=int(rng.choice(new)), **sampling
            ),
            seed=int(rng.integers(2**31)),
            clamp_reads=("incoming", "steered")[int(rng.integers(2))],
        )
        for k in range(n)
    ]


def answers(engine: Engine, requests: Sequence[Request]) -> dict[str, Response]:
    """Responses by id."""
    return {response.id: response for response in engine.generate(requests)}


def differing(one: dict[str, Response], other: dict[str, Response]) -> list[str]:
    """Ids of the requests that were not answered in the same way."""
    assert one.keys() == other.keys()
    return [id for id in one if one[id] != other[id]]


def texts_to_compare(
    subject: Any, lengths: Sequence[tuple[int, int]], sets: int, seed: int = 0
) -> list[tuple[Request, list[tuple[Intervention, ...]]]]:
    """One text for each (prompt tokens, response tokens), with that many sets of interventions, the first empty."""
    rng = np.random.default_rng(seed)
    vocabulary = subject.model.get_input_embeddings().num_embeddings
    tokens = [tuple(rng.integers(8, vocabulary, size=sum(both)).tolist()) for both in lengths]
    return [
        (
            Request(f"t{k}", ids[: both[0]], prefill_ids=ids[both[0] :], clamp_reads=("incoming", "steered")[k % 2]),
            [(), *(interventions(subject, rng, range(subject.n_layers)) for _ in range(sets - 1))],
        )
        for k, (ids, both) in enumerate(zip(tokens, lengths, strict=True))
    ]


def check_divergences(engine: Engine, reference: Engine, texts: Sequence[tuple[Request, Any]]) -> None:
    """Both engines find the same, and that steering does something."""
    found, expected = list(engine.divergences(texts)), list(reference.divergences(texts))
    assert [f.shape for f in found] == [(len(sets), 3) for _, sets in texts]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(one[0], 0, atol=1e-5)
        assert other[:, 1].max() > 0.1
