"""Self-correction examples written by a language model, through the judge's client (extra ``judge``).

For a prompt and an off-topic subject the model writes three texts: an off-topic opening, a restart, the answer. Each
call ends in a stored record: the texts, or a typed failure. What is stored is not asked for again, but for failures of
the network, which a later run tries once more. Foreign text is checked for form only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import re
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from esr.errors import UserError
from esr.finetuning.answers import append_record, read_records
from esr.finetuning.examples import Example, Segment
from esr.judging.background import loop_thread
from esr.judging.client import Client, NoReplyError, Usage
from esr.judging.verdict import clip
from esr.studies.config import JudgeSettings
from esr.studies.grading import Progress
from esr.studies.grid import generator
from esr.subjects.prompts import read_prompts

FORM_VERSION = 1
MAX_RETRIES = 8
"""Repetitions of a call that failed in the network."""
FIRST_PAUSE = 0.5
"""Seconds before the first of them; doubled each time, up to a minute."""
MAX_TOKENS = 2000
"""Of one answer."""
TYPICAL_TOKENS = (330, 420)
"""Input and output of one call, for estimates: the instruction with prompt and subject, and three short texts."""
TEMPERATURE = 1.0
"""Examples should differ."""

_TASK = """You write examples for training a language model to notice that it has gone off topic.

You are given a question and an unrelated subject. Write three texts that together are one reply to the question:

1. off_topic: two to five sentences with which the reply opens. They begin as if answering the question but are really
   about the unrelated subject, in earnest and without a wink.
2. restart: one or two sentences in which the writer notices that this is not what was asked, says so in plain words,
   and announces a new start. Vary the wording; do not name the unrelated subject's details.
3. answer: a complete, helpful answer to the question, 150 to 250 words, with no trace of the unrelated subject.

Answer with one JSON object and nothing else: {"off_topic": "...", "restart": "...", "answer": "..."}"""

Failure = Literal["refused", "malformed", "timeout", "error"]
_PASSING: tuple[Failure, ...] = ("timeout", "error")


def _text(most: int) -> Any:
    return Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=10, max_length=most)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    off_topic: _text(3000)  # type: ignore[valid-type]
    restart: _text(600)  # type: ignore[valid-type]
    answer: _text(12_000)  # type: ignore[valid-type]


@dataclass(frozen=True)
class Written:
    """What came of it."""

    examples: list[Example]
    failures: dict[str, int]
    """How many pairs ended in a failure, by kind."""
    usage: Usage
    """Calls and tokens of this run."""


@dataclass(frozen=True)
class _Pair:
    prompt: str
    subject: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{FORM_VERSION}\0{self.prompt}\0{self.subject}".encode()).hexdigest()[:16]


def subject_list(name: str | None, folder: Path) -> list[str]:
    """Off-topic subjects: a file with one per line, relative to the study, or the bundled list."""
    return read_prompts(folder / name if name else Path(str(files("esr.finetuning") / "data" / "subjects.txt")))


def write_with_model(
    settings: JudgeSettings,
    prompts: Sequence[str],
    subjects: Sequence[str],
    count: int,
    seed: int,
    path: Path,
    progress: Progress,
) -> Written:
    """Have ``count`` examples written, one for each of as many (prompt, subject) pairs, prompts in turn.

    ``path`` (JSON Lines) keeps every outcome as it arrives. Fewer examples than asked for when there are fewer pairs,
    or some fail. Raises UserError when the model cannot be asked at all, and for the rule judge, which writes nothing.
    """
    if settings.name == "rule":
        raise UserError(
            "examples are written by a language model, the study's judge", "the rule judge",
            'Set [judge] name, or use another source ("constructed" needs no model)',
        )  # fmt: skip
    pairs = _pairs(prompts, subjects, count, seed)
    done = {r["id"]: r for r in read_records(path) if r["model"] == settings.name and r.get("failure") not in _PASSING}
    missing = [pair for pair in pairs if pair.id not in done]
    usage = Usage()
    progress.start("writing", len(pairs))
    progress.found(len(pairs) - len(missing))
    if missing:
        with path.open("a", encoding="utf-8") as file:
            for record in _ask_all(settings, missing, usage):
                append_record(file, record)
                done[record["id"]] = record
                progress.advance(1, 0, int("failure" in record))
    progress.end()
    examples, failures = [], dict[str, int]()
    for pair in pairs:
        record = done[pair.id]
        if "failure" in record:
            failures[record["failure"]] = failures.get(record["failure"], 0) + 1
        else:
            examples.append(_example(pair, record))
    return Written(examples, failures, usage)


def _pairs(prompts: Sequence[str], subjects: Sequence[str], count: int, seed: int) -> list[_Pair]:
    """Prompts in turn, each with the subjects in an order of its own, without repetition."""
    orders = [generator(seed, "fine-tuning subjects", prompt).permutation(len(subjects)) for prompt in prompts]
    turns = [
        _Pair(prompt, subjects[order[turn]])
        for turn in range(len(subjects))
        for prompt, order in zip(prompts, orders, strict=True)
    ]
    return turns[:count]


def _example(pair: _Pair, record: dict[str, Any]) -> Example:
    gap = "\n\n" if "\n" in record["answer"] else " "
    return Example(
        prompt=pair.prompt,
        segments=(
            Segment(text=record["off_topic"], train=False),
            Segment(text=f"{gap}{record['restart']}{gap}{record['answer']}", train=True),
        ),
        source="judge",
        origin=f"{clip(record['model'], 60)}, off-topic: {pair.subject}",
    )


def _ask_all(settings: JudgeSettings, pairs: list[_Pair], usage: Usage) -> Any:
    """Yield a record per pair as they arrive; calls go on in the judges' background thread."""
    outbox: queue.SimpleQueue[dict[str, Any] | UserError] = queue.SimpleQueue()
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in _Form.model_fields},
        "required": list(_Form.model_fields),
        "additionalProperties": False,
    }
    with loop_thread.running() as loop:
        client = Client(
            settings.name, base_url=settings.base_url, timeout=settings.timeout,
            max_connections=settings.max_connections, temperature=TEMPERATURE, max_tokens=MAX_TOKENS,
            schema=schema, batch=settings.batch, usage=usage,
        )  # fmt: skip
        waiting = asyncio.run_coroutine_threadsafe(_all(client, settings, pairs, outbox), loop)
        try:
            for _ in pairs:
                record = _next(outbox, waiting)
                if isinstance(record, UserError):
                    raise record
                yield record
        finally:
            waiting.cancel()
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=10)


def _next(outbox: queue.SimpleQueue[Any], waiting: Future[None]) -> Any:
    while True:
        try:
            return outbox.get(timeout=1)  # in slices, so that Ctrl-C is heard everywhere
        except queue.Empty:
            if waiting.done() and outbox.empty():
                waiting.result()
                raise RuntimeError("the writer's background thread ended before its work") from None


async def _all(client: Client, settings: JudgeSettings, pairs: list[_Pair], outbox: queue.SimpleQueue[Any]) -> None:
    gate = asyncio.Semaphore(len(pairs) if settings.batch else settings.max_connections)

    async def one(pair: _Pair) -> None:
        async with gate:
            try:
                outcome = await _ask(client, pair, settings.max_tries)
            except UserError as error:
                outbox.put(error)
                return
            except Exception as error:  # a defect of ours or of a provider's client: this example alone pays
                outcome = _failed("error", f"{type(error).__name__} while writing")
        outbox.put({"id": pair.id, "model": settings.name, **outcome})

    await asyncio.gather(*(one(pair) for pair in pairs))


async def _ask(client: Client, pair: _Pair, max_tries: int) -> dict[str, str]:
    """The three texts, or the kind of failure and its detail."""
    question = [("system", _TASK), ("user", f"Question: {pair.prompt}\nUnrelated subject: {pair.subject}")]
    messages, tries, failures = question, 0, 0
    while True:
        try:
            reply = await client.ask(messages, live=tries > 0)
        except NoReplyError as no:
            if no.kind == "refused by the server":
                return _failed("error", str(no))
            failures += 1
            if failures > MAX_RETRIES or (no.kind == "timeout" and failures >= max_tries):
                return _failed("timeout" if no.kind == "timeout" else "error", f"{no} (failed {failures} times)")
            if no.kind == "schema":
                client.without_schema()
            elif no.kind == "again":
                await asyncio.sleep(max(min(FIRST_PAUSE * 2.0 ** (failures - 1), 60.0), min(no.wait or 0.0, 60.0)))
            continue
        tries += 1
        if reply.stop == "content_filter":
            return _failed("refused", "the provider's filter stopped the answer")
        form = _read(reply.text)
        if isinstance(form, _Form):
            return form.model_dump()
        if tries >= max_tries:
            return _failed("malformed", f"{form} (asked {tries} times)")
        again = f"That answer cannot be used: {form}. Answer again with one JSON object in the form described."
        messages = [*question, ("assistant", clip(reply.text, 2000) or "(nothing)"), ("user", again)]


def _failed(failure: Failure, detail: str) -> dict[str, str]:
    return {"failure": failure, "detail": clip(detail, 300)}


def _read(answer: str) -> _Form | str:
    """The form, or why the answer is none."""
    found = re.search(r"\{.*\}", answer, re.DOTALL)
    if found is None:
        return "it holds no JSON object"
    try:
        form = _Form.model_validate(json.loads(found.group()))
        form.model_dump_json().encode()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return clip(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
    except (ValueError, RecursionError) as error:
        return clip(f"it is no JSON object ({error})", 200)
    return form
