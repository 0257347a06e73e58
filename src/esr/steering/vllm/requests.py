"""What vLLM cannot do, refused before it starts."""

from __future__ import annotations

from esr.errors import UserError
from esr.steering.checks import check_request
from esr.steering.engine import Request
from esr.subjects.loading import Subject

_COLDEST, _HOTTEST = 0.01, 2.0  # vLLM raises lower temperatures to the first and refuses higher than the second


def check_for_vllm(subject: Subject, request: Request, context: int | None = None) -> None:
    """Raises UserError for a request that cannot run, also for sampling that vLLM does not have:
    ``penalty_over="generated"`` with a repetition penalty, and some temperatures.

    ``context``: most tokens of a prompt and its response, where that is fewer than the model was built for.
    """
    check_request(subject, request, context)
    sampling = request.sampling
    if sampling.repetition_penalty != 1 and sampling.penalty_over == "generated":
        raise UserError(
            "vLLM's repetition penalty counts prompt and response",
            'penalty_over="generated"',
            'Use penalty_over = "all", or backend = "hf"',
        )
    if not (sampling.temperature == 0 or _COLDEST <= sampling.temperature <= _HOTTEST):
        raise UserError(
            f"vLLM's temperature is 0 or lies in {_COLDEST:g}..{_HOTTEST:g}",
            sampling.temperature,
            'Use 0 for greedy, or backend = "hf"',
        )
