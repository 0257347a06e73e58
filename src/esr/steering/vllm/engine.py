"""The vLLM engine: upstream vLLM, unmodified, every request steered in its own way.

Greedy float32 tokens are those of ``esr.steering.hf``. Sampled tokens are not: vLLM draws with its own generator. They
are reproducible all the same, for a request's noise comes from its own seed; but unlike the Hugging Face engine's,
logits may differ in their last bits with the batch, so that a token on the very edge may differ with it.

Interventions travel with each request as numbers and digests (``wire``); the workers steer (``worker``, ``table``) and
count the positions they changed, which this side verifies for every response (``client``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from esr.errors import SteeringError, UserError
from esr.steering.checks import check_ids, check_interventions, check_span
from esr.steering.divergence import MEASURES, check_divergence, compared
from esr.steering.engine import Request, Response, text_request
from esr.steering.interventions import Intervention
from esr.steering.settings import VLLMSettings
from esr.steering.stopping import stop
from esr.steering.vllm import start
from esr.steering.vllm.client import Client, Done
from esr.steering.vllm.requests import check_for_vllm
from esr.steering.vllm.start import check_subject, check_version
from esr.steering.vllm.wire import Comparing, Reading, unpack_activity, unpack_latents, unpack_measures
from esr.subjects.latents import Activity, check_latent
from esr.subjects.loading import Subject


class VLLMEngine:
    """See ``esr.steering.engine.Engine``. ``batch_size``: most requests in flight.

    Starts vLLM, which takes a while and, unless VLLM_ENABLE_V1_MULTIPROCESSING is 0, processes of its own; ``close``
    ends them. Of the subject, tokenizer, SAE and sizes are used, not the weights: vLLM loads those itself. Raises
    UserError for a vLLM that is missing or not supported, and for a subject it cannot steer.
    """

    def __init__(self, subject: Subject, settings: VLLMSettings | None = None, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise UserError("batch_size is at least 1", batch_size)
        self._version = check_version()
        check_subject(subject)
        self.subject = subject
        self._vllm = start.start(subject, settings or VLLMSettings(), batch_size)
        self._client = Client(self._vllm, batch_size, subject.end_ids)
        self._texts_at_once = batch_size
        self._text = 0  # number of the last text whose next-token distributions were compared
        self.context = int(self._vllm.model_config.max_model_len)
        """Most tokens of a prompt and its response."""
        try:
            self._install()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        subject = self.subject
        answers = self._client.call("esr_install", subject.spec.model_dump_json(), subject.n_layers, subject.read_layer)
        workers = [json.loads(answer) for answer in answers]
        held = {layer for worker in workers for layer in worker["layers"]}
        if held != set(range(subject.n_layers)):
            raise SteeringError(f"vLLM's workers hold layers {sorted(held)}, the model has {subject.n_layers}")
        self._about = {"engine": "vllm", "vllm": self._version, "workers": str(len(workers))}
        self._about |= {name: ", ".join(sorted({w[name] for w in workers})) for name in ("device", "runner")}

    def about(self) -> dict[str, str]:
        """See ``Engine.about``."""
        return self._about

    def close(self) -> None:
        """End vLLM and its processes. The engine cannot be used afterwards."""
        start.stop(self._vllm)

    # ---- generating

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """See ``Engine.generate``. All requests are checked before the first one runs."""
        check_ids(requests)
        for request in requests:
            self.check(request)
        return (self._response(done) for done in self._client.run((r, None) for r in requests if not stop.asked))

    def check(self, request: Request) -> None:
        """See ``check_for_vllm``."""
        check_for_vllm(self.subject, request, self.context)

    def _response(self, done: Done) -> Response:
        request = done.request
        tokens = request.prefill_ids + (done.tokens[:-1] if done.stopped else done.tokens)
        text = self.subject.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(request.id, tokens, text, "stop" if done.stopped else "length", sum(done.counts.values()))

    # ---- reading

    def read(
        self,
        token_ids: Sequence[int],
        latents: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        prompt_length: int | None = None,
    ) -> NDArray[np.float32]:
        """See ``Engine.read``."""
        return next(self.readings([text_request(token_ids, interventions, prompt_length)], latents))

    def readings(self, requests: Iterable[Request], latents: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.readings``. A text is shorter than the context: vLLM always draws one token."""
        reader = self.subject.require_reader()
        for latent in latents:
            check_latent(latent, reader.d_sae)
        remaining = iter(requests)
        while batch := list(islice(remaining, self._texts_at_once)):
            for request in batch:
                self._check_text(request)
            work = [(request, Reading(tuple(latents))) for request in batch]
            found = {done.place: done for done in self._client.run(work)}
            for place, request in enumerate(batch):
                tokens = len(request.prompt_ids) + len(request.prefill_ids)
                yield unpack_latents(found[place].data, tokens, len(latents))

    def activity(self, texts: Iterable[tuple[Request, int, int]]) -> Iterator[Activity]:
        """See ``Engine.activity``. As many texts as there may be requests in flight are taken at a time."""
        self.subject.require_reader()
        remaining = iter(texts)
        while batch := list(islice(remaining, self._texts_at_once)):
            for request, begin, end in batch:
                self._check_text(request)
                check_span(request, begin, end)
            work = [(request, Reading(None, begin, end)) for request, begin, end in batch]
            found = {done.place: unpack_activity(done.data) for done in self._client.run(work)}
            yield from (found[place] for place in range(len(batch)))

    def max_activations(self, sequences: Iterable[tuple[Sequence[int], int, int]]) -> Iterator[NDArray[np.float32]]:
        """See ``Engine.max_activations``."""
        for activity in self.activity((Request("read", tuple(ids)), begin, end) for ids, begin, end in sequences):
            yield activity.maximum

    def divergences(
        self, texts: Iterable[tuple[Request, Sequence[tuple[Intervention, ...]]]]
    ) -> Iterator[NDArray[np.float64]]:
        """See ``Engine.divergences``. A text's plain distributions, up to ``MOST_POSITIONS`` of them, stay in the
        workers while it is read."""
        for request, sets in texts:
            self._check_text(request)
            check_divergence(self.subject, request, sets)
            self._text += 1
            plain = Comparing(self._text, compared(request), plain=True)
            try:
                for _ in self._client.run([(replace(request, interventions=()), plain)]):
                    pass
                moved = replace(plain, plain=False)
                work = ((replace(request, interventions=own), moved) for own in sets)
                found = np.zeros((len(sets), len(MEASURES)))
                for done in self._client.run(work):
                    found[done.place] = unpack_measures(done.data)
            finally:
                self._client.call("esr_forget", plain.text)
            yield found

    def _check_text(self, request: Request) -> None:
        length = len(request.prompt_ids) + len(request.prefill_ids)
        if length >= self.context:
            rule = f"a text to read is shorter than the context of {self.context} tokens"
            raise UserError(rule, length, "Shorten it")
        check_interventions(self.subject, request.interventions)
