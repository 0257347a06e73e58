"""Handing requests to vLLM and taking finished ones back, each with what the workers report about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from esr.errors import SteeringError
from esr.steering.checks import check_counts, not_finite
from esr.steering.engine import Request, Sampling
from esr.steering.interventions import Add
from esr.steering.vllm.wire import EXTRA, Comparing, Reading, Report, pack_request

_AHEAD = 2  # requests handed to vLLM per request in flight: enough that it never waits for the next
_ONE_TOKEN = Sampling(temperature=0, max_new_tokens=1)


@dataclass(frozen=True)
class Done:
    """A finished request."""

    place: int
    """In the work, from 0."""
    request: Request
    tokens: tuple[int, ...]
    """Generated tokens, with the end token that stopped them."""
    stopped: bool
    """An end token stopped it, not the limit."""
    counts: dict[int, int]
    """{layer: positions changed}; verified."""
    data: list[bytes]
    """What was to be found out about the text, packed; empty for a response."""


class Client:
    """vLLM's engine with the steering worker installed. Several ``run`` may be under way at once, one suspended in
    another."""

    def __init__(self, vllm: Any, in_flight: int, end_ids: Iterable[int]) -> None:
        self._vllm = vllm
        self._most = _AHEAD * in_flight
        self._end_ids = sorted(end_ids)
        self._registered: set[str] = set()
        self._key = 0
        self._outputs: dict[int, Any] = {}  # finished in vLLM, and not taken yet by the run that asked

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Every worker's answer."""
        answers: list[Any] = self._vllm.collective_rpc(method, args=arguments)
        return answers

    def run(self, work: Iterable[tuple[Request, Reading | Comparing | None]]) -> Iterator[Done]:
        """Do all of the work, which has been checked, and yield as it finishes. What only finds something out about a
        text generates one token, for vLLM always does.

        Raises SteeringError when positions changed are not the positions scheduled, or NaN or infinity appeared.
        """
        waiting, running = enumerate(work), dict[int, tuple[int, Request]]()
        try:
            while True:
                new = list(islice(waiting, self._most - len(running)))
                self._register([request for _, (request, _) in new])
                for place, (request, wanted) in new:
                    running[self._submit(request, wanted)] = place, request
                if not running:
                    return
                for key, reports in self._wait(running.keys()):
                    yield self._done(*running.pop(key), self._outputs.pop(key), reports)
        finally:
            self._give_up(list(running))

    def _submit(self, request: Request, wanted: Reading | Comparing | None) -> int:
        self._key += 1
        sampling = request.sampling if wanted is None else _ONE_TOKEN
        parameters = self._parameters(sampling, request.seed, pack_request(self._key, request, wanted))
        self._vllm.add_request(str(self._key), self._prompt(request), parameters)
        return self._key

    @staticmethod
    def _prompt(request: Request) -> Any:
        from vllm.inputs import tokens_input

        return tokens_input([*request.prompt_ids, *request.prefill_ids])

    def _register(self, requests: Sequence[Request]) -> None:
        new = {
            i.direction.digest: i.direction.vector.tobytes()
            for request in requests
            for i in request.interventions
            if isinstance(i, Add) and i.direction.digest not in self._registered
        }
        if new:
            self.call("esr_register", new)
            self._registered |= new.keys()

    def _parameters(self, sampling: Sampling, seed: int, packed: dict[str, Any]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=seed if sampling.temperature > 0 else None,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self._end_ids,
            ignore_eos=True,  # the subject's end tokens are all listed
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={EXTRA: packed},
        )

    def _wait(self, running: Collection[int]) -> Iterator[tuple[int, list[Report]]]:
        """At least one of the running requests that has finished, with every worker's report."""
        while not (finished := [key for key in running if key in self._outputs]):
            if not self._vllm.has_unfinished_requests():
                raise SteeringError(f"vLLM has lost {len(running)} requests.")
            for output in self._vllm.step():
                if output.finished:
                    self._outputs[int(output.request_id)] = output
        by_worker = self.call("esr_take", finished)
        for key, *packed in zip(finished, *by_worker, strict=True):
            yield key, [Report.unpacked(p) for p in packed if p]

    def _done(self, place: int, request: Request, output: Any, reports: Sequence[Report]) -> Done:
        answer = output.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            raise SteeringError(f"vLLM did not finish request {request.id}: {answer.finish_reason}")
        tokens = tuple(answer.token_ids)
        processed = len(request.prefill_ids) + len(tokens) - 1  # the last token drawn is never fed back
        counts = verify(request, processed, reports)
        data = next((report.data for report in reports if report.data), [])
        return Done(place, request, tokens, answer.finish_reason == "stop", counts, data)

    def _give_up(self, keys: list[int]) -> None:
        if keys:
            self._vllm.abort_request([str(key) for key in keys if key not in self._outputs])
            self.call("esr_take", keys)
            for key in keys:
                self._outputs.pop(key, None)


def verify(request: Request, processed: int, reports: Sequence[Report]) -> dict[int, int]:
    """{layer: positions changed}, once all workers say that they did what was asked.

    processed: response tokens the model must have processed. Raises SteeringError otherwise.
    """
    if not reports:
        raise SteeringError(f"No worker of vLLM has seen request {request.id}.")
    counts: dict[int, int] = {}
    for report in reports:
        if report.broken:
            raise not_finite(request, report.broken)
        tokens = len(request.prompt_ids) + processed
        if report.skipped or report.processed != tokens:
            reason = report.skipped or f"{report.processed} tokens were computed, {tokens} expected"
            raise SteeringError(f"Steering cannot be vouched for in request {request.id}: {reason}.")
        for layer, changed in report.counts.items():
            if counts.setdefault(layer, changed) != changed:
                raise SteeringError(
                    f"Workers of vLLM steered request {request.id} differently: at layer {layer}, "
                    f"{counts[layer]} and {changed} positions changed."
                )
    check_counts(request, counts, processed)
    return counts
