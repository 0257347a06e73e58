"""More ordinary answers: what the subject says to the prompts unsteered, generated where the study has too few."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from esr.finetuning.examples import Example, Segment
from esr.judging.degraded import is_degraded
from esr.judging.records import EXPLICIT_KINDS
from esr.judging.screen import find_restarts
from esr.steering.engine import Request, Sampling
from esr.steering.make import make_engine
from esr.studies.config import StudyConfig
from esr.studies.grading import Progress
from esr.studies.grid import generator
from esr.subjects.chat import chat_ids
from esr.subjects.loading import Subject


def generate_answers(
    subject: Subject, config: StudyConfig, prompts: list[str], count: int, path: Path, progress: Progress
) -> list[Example]:
    """About ``count`` unsteered responses in the study's sampling, prompts in turn, each by a seed of its own.

    Nobody judges them: a response that is empty, degraded, or has a restart phrase is left out. What ``path`` (JSON
    Lines) has is not generated again.
    """
    sampling = Sampling(**config.sampling.model_dump())
    places = {f"{i // len(prompts)} {prompts[i % len(prompts)]}": prompts[i % len(prompts)] for i in range(count)}
    done = {record["id"]: record for record in read_records(path)}
    requests = [
        Request(
            id=id,
            prompt_ids=chat_ids(subject, subject.spec, prompt),
            sampling=sampling,
            seed=int(generator(config.seed, "fine-tuning answer", id).integers(2**31)),
        )
        for id, prompt in places.items()
        if id not in done
    ]
    progress.start("answers", len(places))
    progress.advance(len(places) - len(requests), 0, 0)
    engine = make_engine(subject, config.engine, config.subject)
    with path.open("a", encoding="utf-8") as file, closing(engine):
        for response in engine.generate(requests):
            record = {"id": response.id, "text": response.text, "ends": response.finish == "stop"}
            append_record(file, record)
            done[response.id] = record
            progress.advance(1, len(response.token_ids), 0)
    progress.end()
    return [
        Example(
            prompt=prompt,
            segments=(Segment(text=done[id]["text"], train=True),),
            source="ordinary",
            ends=done[id]["ends"],
            origin=f"generated, number {id.split()[0]}",
        )
        for id, prompt in places.items()
        if _is_ordinary(done[id]["text"], prompt)
    ]


def _is_ordinary(text: str, prompt: str) -> bool:
    restarts = any(mark.kind in EXPLICIT_KINDS for mark in find_restarts(text, prompt))
    return bool(text.strip()) and not is_degraded(text) and not restarts


def append_record(file: Any, record: dict[str, Any]) -> None:
    """Write one JSON line through to the disk."""
    file.write(json.dumps(record) + "\n")
    file.flush()
    os.fsync(file.fileno())


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines; a last line that a kill cut short is removed from the file."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.splitlines():
        yield json.loads(line)
