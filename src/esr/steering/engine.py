"""The boundary between studies and engines: what is asked, what comes back, and who can answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from esr.errors import UserError
from esr.steering.interventions import ClampReads, Intervention

if TYPE_CHECKING:
    from esr.subjects.latents import Activity  # comes with torch

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.6
    """Divides the logits; 0 is greedy. The published value is 0.6."""
    top_p: float = 1.0
    """Smallest set of most likely tokens whose probability reaches top_p, in (0, 1]; applied after temperature."""
    repetition_penalty: float = 1.0
    """Logits of tokens already seen are divided (if positive) or multiplied (if negative) by it; 1 is off
    (Keskar et al. 2019, the definition of transformers and vLLM)."""
    penalty_over: Literal["all", "generated"] = "all"
    """Which tokens count as seen: prompt and response (transformers, vLLM), or the response only."""
    max_new_tokens: int = 512
    """Upper bound on generated tokens, a prefill not counted."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError("temperature is a number >= 0", self.temperature)
        if not 0 < self.top_p <= 1:
            raise UserError("top_p lies in (0, 1]", self.top_p)
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UserError("repetition_penalty is a number > 0", self.repetition_penalty, "Use 1 to switch it off")
        if self.max_new_tokens < 1:
            raise UserError("max_new_tokens is at least 1", self.max_new_tokens)


@dataclass(frozen=True)
class Request:
    """One response asked for. Requests of one batch may differ in every field."""

    id: str
    prompt_ids: tuple[int, ...]
    """Token ids of the whole prompt, chat template included."""
    interventions: tuple[Intervention, ...] = ()
    sampling: Sampling = Sampling()
    seed: int = 0
    """Seeds this request's noise and nothing else's; 0 <= seed < 2**63."""
    prefill_ids: tuple[int, ...] = ()
    """Tokens the response is made to begin with."""
    clamp_reads: ClampReads = "incoming"
    """What clamps read: the residual stream before this request's adds (published) or after them."""

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "prefill_ids", "interventions"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise UserError(f"{name} is a tuple", type(value).__name__)
            object.__setattr__(self, name, tuple(value))
        if not self.prompt_ids:
            raise UserError("a prompt has at least one token", f"none in request {self.id}")
        if not 0 <= self.seed < 2**63:
            raise UserError("a seed lies in [0, 2**63)", self.seed)

    def describe(self) -> dict[str, Any]:
        """Everything that determines the response, as plain data; the id is not part of it."""
        s = self.sampling
        return {
            "prompt": list(self.prompt_ids),
            "prefill": list(self.prefill_ids),
            "interventions": [i.describe() for i in self.interventions],
            "clamp_reads": self.clamp_reads,
            "sampling": [s.temperature, s.top_p, s.repetition_penalty, s.penalty_over, s.max_new_tokens],
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Response:
    """One finished response."""

    id: str
    """The request's id."""
    token_ids: tuple[int, ...]
    """Prefill and generated tokens, without the end token."""
    text: str
    """The tokens decoded, special tokens skipped. Untrusted."""
    finish: Finish
    """``stop``: the model ended its answer; ``length``: the token limit ended it."""
    steered_positions: int
    """Positions changed, summed over interventions; already checked against the schedules."""


def text_request(token_ids: Sequence[int], interventions: Sequence[Intervention], prompt_length: int | None) -> Request:
    """A text to read: its first ``prompt_length`` tokens are the prompt, the rest a response; None: all are."""
    split = len(token_ids) if prompt_length is None else prompt_length
    return Request("read", tuple(token_ids[:split]), tuple(interventions), prefill_ids=tuple(token_ids[split:]))


class Engine(Protocol):
    """Generates steered responses and reads latents. ``esr.steering.hf`` is the reference implementation."""

    def check(self, request: Request) -> None:
        """Raises UserError for a request that cannot run: too long, a layer, width or latent out of range."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request, as they finish, in any order.

        Raises UserError before any generation for requests that cannot be run (too long, layer out of range), and
        SteeringError when the positions changed are not the positions scheduled or the residual stream is not finite.
        """
        ...

    def read(
        self,
        token_ids: Sequence[int],
        latents: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> NDArray[np.float32]:
        """SAE activations [tokens, latents] of a given text, teacher-forced under the interventions.

        Read from the residual stream as it leaves the read layer, that is after any intervention there.
        ``prompt_length`` places response position 0 for the schedules; default: the whole text is prompt.
        """
        ...

    def readings(self, requests: Iterable[Request], latents: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """``read`` for many texts, in order: for each request the activations [tokens, latents] over its prompt and
        prefill, teacher-forced under its interventions. Texts are streamed and batched."""
        ...

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """For each (request, start, end), in order: what every latent does over the token positions start..end-1 of
        the request's prompt and prefill, teacher-forced under its interventions.

        Memory does not grow with the texts: of the activations of a text, only sums over its tokens are kept. Raises
        UserError for an empty span or a text beyond the model's context.
        """
        ...

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """For each unsteered (token_ids, start, end): every latent's maximum, shape [latents], over the token
        positions start..end-1."""
        ...

    def divergences(
        self, texts: Iterable[tuple[Request, Sequence[tuple[Intervention, ...]]]]
    ) -> Iterator[NDArray[np.float64]]:
        """For each (request, sets), in order: how far each set of interventions moves the next-token distributions
        over the request's prefill, [sets, measures]; see ``esr.steering.divergence``. Nothing is generated."""
        ...

    def about(self) -> dict[str, str]:
        """What computes, for the study's provenance: engine, device and what else determines its numbers. Empty for an
        engine that has not been needed yet."""
        ...

    def close(self) -> None:
        """End its processes and free what it holds."""
        ...
