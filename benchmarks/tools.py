"""The same mixed-direction job by this engine and by the tools people steer with today; ratios first.

    python benchmarks/tools.py [--sizes organism 25m] [--tools ...] [--rounds 3] [--modes single batch] [--threads 1]

The job: 64 directions x 5 prompts of 24 tokens x 128 new tokens, greedy, an add of another direction for every 5 rows.
Ours runs the whole of it. The tools run it in two ways: *one direction at a time* (5 prompts a batch: how they are
used; timed over the first few directions, since each takes as long as the next) and, those that can, *all directions
in one batch written by hand*. Every tool's answers are compared with ours first. Every side has --threads threads;
seconds are those of CPU time with one thread, else those of the clock, which needs a machine that does nothing else.
Sides take turns, and a ratio is the median of those within a round. nnsight, repeng and steering-vectors get an
environment of their own from PyPI, on top of this one's torch, in a cache folder (--cache).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import random_llama
from steer_with import TOOLS

from esr.steering.engine import Request, Sampling
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add, Direction
from esr.subjects.loading import Subject, load_subject
from esr.subjects.published import published_subject

DIRECTIONS, PROMPTS, PROMPT_TOKENS, NEW_TOKENS, BOOST = 64, 5, 24, 128, 4.0
REQUIREMENTS = {"nnsight": "nnsight==0.8.1", "repeng": "repeng==0.4.0", "steering-vectors": "steering-vectors==0.12.2"}
AT_A_TIME = {"organism": 4, "25m": 1}  # directions timed one after another


def environment(tool: str, cache: Path) -> str:
    """The Python that has the tool: this one, or that of an environment made on first use."""
    if tool not in REQUIREMENTS:
        return sys.executable
    folder = cache / REQUIREMENTS[tool].replace("==", "-")
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        ours = sysconfig.get_paths()["purelib"]
        theirs = sysconfig.get_path("purelib", vars={"base": str(folder)})
        Path(theirs, "torch_from.pth").write_text(ours + "\n")  # pip counts what is there as installed
        print(f"installing {REQUIREMENTS[tool]} into {folder}", flush=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", REQUIREMENTS[tool]], check=True)
        ready.touch()
    return str(python)


class Worker:
    """A process that steers with one tool; see ``steer_with.py``."""

    def __init__(self, tool: str, folder: Path, cache: Path, threads: int) -> None:
        script = Path(__file__).with_name("steer_with.py")
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [environment(tool, cache), str(script), tool, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, mode: str, directions: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(mode, directions, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return {"error": "it does not start in this environment"}
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        return {"error": "it does not start in this environment"}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Side:
    """One tool in one mode."""

    tool: str
    mode: str
    directions: int
    same: int = 0
    asked: int = 0
    seconds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def rates(self) -> list[float]:
        """Tokens a second, round by round."""
        return [self.directions * PROMPTS * NEW_TOKENS / seconds for seconds in self.seconds]


def job(subject: Subject, folder: Path) -> list[Request]:
    """Our requests; the same job is written to the folder for the tools."""
    rng = np.random.default_rng(0)
    vocabulary = subject.model.get_input_embeddings().num_embeddings
    prompts = [[int(t) for t in rng.integers(8, vocabulary, size=PROMPT_TOKENS)] for _ in range(PROMPTS)]
    reader = subject.require_reader()
    directions = [Direction(f"latent:{k}", reader.direction(k)) for k in range(DIRECTIONS)]
    np.save(folder / "vectors.npy", np.stack([np.float32(BOOST) * d.vector for d in directions]))
    values = {"layer": subject.steer_layer, "prompts": prompts, "new_tokens": NEW_TOKENS}
    (folder / "job.json").write_text(json.dumps(values))
    return [
        Request(f"{d}:{p}", tuple(ids), (Add(direction, BOOST, subject.steer_layer),), Sampling(0, max_new_tokens=128))
        for d, direction in enumerate(directions)
        for p, ids in enumerate(prompts)
    ]


def ours(engine: HFEngine, requests: list[Request], threads: int) -> tuple[float, list[list[int]]]:
    """Tokens a second, and the answers."""
    clock = time.process_time if threads == 1 else time.perf_counter
    began = clock()
    found = {r.id: list(r.token_ids) for r in engine.generate(requests)}
    return len(requests) * NEW_TOKENS / (clock() - began), [found[r.id] for r in requests]


def compare(size: str, folder: Path, options: argparse.Namespace) -> None:
    """Print the tables of one model."""
    spec = published_subject("organism").spec if size == "organism" else random_llama(folder / "model")
    subject = replace(load_subject(spec), end_ids=frozenset())
    torch.set_num_threads(options.threads)  # loading has chosen a number by the model's size
    if size == "organism":
        subject.model.save_pretrained(folder / "model")
        subject.tokenizer.save_pretrained(folder / "model")
    requests = job(subject, folder)
    engine = HFEngine(subject)
    _, expected = ours(engine, requests, options.threads)  # not timed: caches and allocators
    rates: list[float] = []
    workers = {tool: Worker(tool, folder, options.cache, options.threads) for tool in options.tools}
    count = {"single": AT_A_TIME[size], "batch": DIRECTIONS}
    sides = [Side(tool, mode, count[mode]) for mode in options.modes for tool in options.tools]
    for side in sides:  # the same answers? Also warms it up
        answer = workers[side.tool].ask(side.mode, min(2, side.directions))
        side.error = answer.get("error", "")
        side.asked = len(answer.get("answers", []))
        side.same = sum(a == b for a, b in zip(answer.get("answers", []), expected, strict=False))
    for _ in range(options.rounds):
        rates.append(ours(engine, requests, options.threads)[0])
        for side in sides:
            if not side.error:
                side.seconds.append(workers[side.tool].ask(side.mode, side.directions)["seconds"])
    for worker in workers.values():
        worker.close()
    titles = {"single": "one direction at a time", "batch": "all directions in one batch, written by hand"}
    job_size = f"{DIRECTIONS} directions x {PROMPTS} prompts x {NEW_TOKENS} tokens, {options.threads} threads"
    print(f"\n{size}: ours {statistics.median(rates):,.0f} tokens/s ({job_size})")
    for mode in options.modes:
        print(f"  against {titles[mode]}")
        for side in (s for s in sides if s.mode == mode):
            if side.error:
                print(f"     -   {side.tool:17} {side.error}")
            else:
                ratio = statistics.median(a / b for a, b in zip(rates, side.rates, strict=True))
                rate = statistics.median(side.rates)
                same = f"{side.same} of {side.asked} answers the same"
                print(f"  {ratio:5.2f}  ours / {side.tool:17} {rate:7,.0f} tokens/s; {same}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["organism", "25m"], choices=["organism", "25m"])
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--modes", nargs="+", default=["single", "batch"], choices=["single", "batch"])
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of every side (default 1)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "esr-benchmarks")
    options = parser.parse_args()
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            compare(size, Path(folder), options)


if __name__ == "__main__":
    main()
