"""The model judge: any language model, asked once per response, believed only where its quotes are found.

    exhibit -> fenced message -> model -> verdict form -> quotes located -> Scored
                                  ^____ asked again, with the reason ____|      (at most max_tries times, then
                                  Unscored)

Every exhibit ends in exactly one judgement. Failures of the network are repeated with growing pauses, up to
``max_retries`` per exhibit; an answer that is no verdict, or none in time, counts as one of ``max_tries``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from esr.errors import UserError
from esr.judging.background import loop_thread
from esr.judging.client import Call, Client, NoReplyError, Reply, Usage
from esr.judging.quotes import visible
from esr.judging.records import Exhibit, Judgement, Unscored
from esr.judging.rubric import exhibit_message, load_rubric
from esr.judging.verdict import FORM_VERSION, Rejected, clip, read_verdict, verdict_schema

FIRST_PAUSE = 0.5
"""Seconds before a failed call is repeated; doubled each time."""
LONGEST_PAUSE = 60.0
"""Seconds; also the most a server's retry-after is obeyed for."""
BATCH_WINDOW = 10_000
"""Responses waiting at the provider at one time in batch mode."""
PATIENCE = 20
"""So many responses may fail before the first answer to anything; then the judge counts as out of reach."""

_REFUSAL = ("i'm sorry", "i’m sorry", "i am sorry", "sorry,", "i can't", "i can’t", "i cannot", "i'm unable")


class ModelJudge:
    """Judges responses with a language model, through inspect_ai (extra ``judge``).

    ``model`` is inspect_ai's PROVIDER/MODEL; keys come from the provider's environment variable and are never
    stored.
    """

    def __init__(
        self,
        model: str,
        *,
        rubric: Path | None = None,
        segments: bool = False,
        max_tries: int = 3,
        max_retries: int = 8,
        timeout: float = 60.0,
        max_connections: int = 32,
        base_url: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int = 4096,
        batch: bool = False,
    ) -> None:
        """Raises UserError for a rubric that cannot be used and numbers out of range; asks nobody.

        max_tries: answers asked for per response, at least 1. max_retries: failed calls repeated per
        response, at least 0. timeout: seconds per call, at least 1, rounded to whole ones; not used for the
        first call in batch mode, which may take a day. max_connections: most responses in flight; rate limits
        lower it for a while. temperature: None leaves it to the provider. max_tokens: bound on one answer,
        reasoning included.
        """
        if not model.strip():
            raise UserError("a model judge has a model", repr(model), "Name it PROVIDER/MODEL")
        for name, value, least in (
            ("max_tries", max_tries, 1),
            ("max_retries", max_retries, 0),
            ("timeout", timeout, 1),
            ("max_connections", max_connections, 1),
            ("max_tokens", max_tokens, 64),
        ):
            if not value >= least:
                raise UserError(f"{name} is at least {least}", value)
        self._model = model
        self._rubric = load_rubric(rubric, segments=segments)
        self._max_tries, self._max_retries = max_tries, max_retries
        self._timeout, self._max_connections = timeout, max_connections
        self._base_url, self._temperature, self._max_tokens = base_url, temperature, max_tokens
        self._batch = batch
        self.usage = Usage()
        """Calls and tokens since this judge was made."""
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    @property
    def name(self) -> str:
        """PROVIDER/MODEL."""
        return self._model

    @property
    def key(self) -> str:
        """16 hex digits: model, rubric, form and what shapes an answer.

        How the answers are fetched (address, API key, batches, tries, limits) is no part of it.
        """
        material = {
            "model": self._model,
            "rubric": self._rubric.digest,
            "form": FORM_VERSION,
            "segments": self._rubric.segments,
            "temperature": self._temperature,
        }
        return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:16]

    def preflight(self) -> None:
        """Check, without a call, that the model can be asked.

        Raises UserError for an unknown provider, a missing key or package, batch mode where there is none.
        """
        with loop_thread.running() as loop:
            client = self._client()
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=30)

    def _client(self) -> Client:
        return Client(
            self._model,
            base_url=self._base_url,
            timeout=self._timeout,
            max_connections=self._max_connections,
            temperature=self._temperature,
            max_tokens=self._max_tokens,
            schema=verdict_schema(self._rubric.segments),
            batch=self._batch,
            usage=self.usage,
            log=self._calls.put,
        )

    def calls(self) -> list[Call]:
        """The calls that have ended since this was last asked, in their order; any thread may ask."""
        found = []
        while True:
            try:
                found.append(self._calls.get_nowait())
            except queue.Empty:
                return found

    def judge(self, exhibits: Iterable[Exhibit]) -> Iterator[tuple[str, Judgement]]:
        """Yield (exhibit id, judgement) as they are ready, each exhibit exactly once.

        The exhibits are drawn in the caller's thread, no faster than they are judged; calls go on in a
        background thread while the caller draws or handles a result. Closing the iterator cancels what is
        under way. Raises UserError when nothing can be judged (see ``preflight``; key refused; model
        unknown; no answer to anything), after yielding what was ready.
        """
        window = BATCH_WINDOW if self._batch else self._max_connections
        outbox: queue.SimpleQueue[tuple[int, str, Judgement | UserError]] = queue.SimpleQueue()
        source = enumerate(exhibits)
        under_way: dict[int, Future[None]] = {}
        fatal: UserError | None = None
        failed, drawn = 0, False
        with loop_thread.running() as loop:
            client = self._client()
            try:
                while not drawn or under_way:
                    if not drawn and len(under_way) < window:
                        number, exhibit = next(source, (-1, None))
                        if exhibit is None:
                            drawn = True
                            continue
                        call = self._deliver(client, number, exhibit, outbox)
                        under_way[number] = asyncio.run_coroutine_threadsafe(call, loop)
                        if outbox.empty():
                            continue
                    if fatal and outbox.empty():
                        raise fatal
                    number, id, judgement = self._next(outbox)
                    del under_way[number]
                    if isinstance(judgement, UserError):
                        fatal, drawn = judgement, True
                        continue
                    yield id, judgement
                    failed += isinstance(judgement, Unscored) and judgement.reason in ("error", "timeout")
                    if failed >= PATIENCE and not client.replies and not fatal:
                        fatal, drawn = self._out_of_reach(judgement), True
                if fatal:
                    raise fatal
            finally:
                for future in under_way.values():
                    future.cancel()
                if not sys.is_finalizing():
                    asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=10)

    def _out_of_reach(self, last: Judgement) -> UserError:
        return UserError(
            f"the judge {self._model} answers",
            last.detail if isinstance(last, Unscored) else None,
            "Check the network, the server and its address, and run again",
        )

    def _next(self, outbox: queue.SimpleQueue[Any]) -> Any:
        while True:
            try:
                return outbox.get(timeout=1)  # in slices, so that Ctrl-C is heard everywhere
            except queue.Empty:
                if not loop_thread.alive:
                    raise RuntimeError("the judge's background thread ended before its work") from None

    async def _deliver(self, client: Client, number: int, exhibit: Exhibit, outbox: queue.SimpleQueue[Any]) -> None:
        result: Judgement | UserError
        try:
            result = await self._judge_one(client, exhibit)
        except UserError as error:
            result = error
        except Exception as error:  # a defect of ours or of a provider's client: this response alone pays
            result = Unscored("error", f"{type(error).__name__} while judging")
        outbox.put((number, exhibit.id, result))

    async def _judge_one(self, client: Client, exhibit: Exhibit) -> Judgement:
        if not visible(exhibit.response).strip():
            return Unscored("no attempt", "the response is empty")
        question = [
            ("system", self._rubric.text),
            ("user", exhibit_message(exhibit.prompt, exhibit.response, segments=self._rubric.segments)),
        ]
        messages = question
        tries = failures = 0
        while True:
            try:
                reply = await client.ask(messages, live=tries > 0, about=exhibit.id)
            except NoReplyError as no:
                if no.kind == "refused by the server":
                    return Unscored("error", str(no))
                if no.kind == "timeout":
                    tries += 1
                    if tries >= self._max_tries:
                        return Unscored("timeout", f"{no}, {tries} times")
                    continue
                failures += 1
                if failures > self._max_retries:
                    return Unscored("error", f"{no} (failed {failures} times)")
                if no.kind == "schema":
                    client.without_schema()
                else:
                    await asyncio.sleep(_pause(exhibit.id, failures, no.wait))
                continue
            tries += 1
            verdict = self._read(reply, exhibit)
            if not isinstance(verdict, Rejected):
                return verdict
            if tries >= self._max_tries:
                return Unscored(verdict.reason, f"{verdict.detail} (asked {tries} times)")
            messages = question + _correction(reply, verdict)

    def _read(self, reply: Reply, exhibit: Exhibit) -> Judgement | Rejected:
        if reply.stop == "content_filter":
            return Unscored("refused", clip(reply.text, 200) or "the provider's filter stopped the answer")
        if reply.stop == "model_length":
            return Unscored("error", "the response is too long for the judge's context")
        verdict = read_verdict(reply.text, exhibit.response, segments=self._rubric.segments)
        if isinstance(verdict, Rejected) and verdict.reason == "malformed":
            if reply.stop == "max_tokens":
                return Rejected("malformed", f"the answer was cut off at {self._max_tokens} tokens")
            if "{" not in reply.text and reply.text.strip().lower().startswith(_REFUSAL):
                return Rejected("refused", clip(reply.text, 200))
        return verdict


def _correction(reply: Reply, verdict: Rejected) -> list[tuple[str, str]]:
    """What is added when a verdict is asked for again: the answer, shortened, and why it cannot be used."""
    answer = clip(reply.text, 2000)
    again = (
        f"That answer cannot be used: {verdict.detail}. Judge the same response again. Answer with one JSON "
        "object in the form described and nothing else; copy every quote letter by letter from the response, in "
        "its order."
    )
    return [("assistant", answer), ("user", again)] if answer else []


def _pause(id: str, failures: int, asked: float | None) -> float:
    """Seconds to the next call: doubling, spread by a hash of the exhibit, not less than the server asked."""
    spread = int.from_bytes(hashlib.sha256(f"{failures} {id}".encode()).digest()[:4], "big") / 2**32
    pause: float = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) * (0.5 + spread / 2)
    return max(pause, min(asked or 0.0, LONGEST_PAUSE))
