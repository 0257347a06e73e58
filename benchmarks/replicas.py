"""Throughput of replicas over that of one engine, in one run: the ratio first.

    python benchmarks/replicas.py [--replicas 2] [--backend hf] [--sizes organism 25m] [--kinds equal ending]

One engine in this process with one thread, then the replicas, each with one CPU core, in turns; both with the batch
size that a user gets who sets none. Wall time, medians, after a run that is not counted. Every request is steered by an
add of its own: 768 requests to the organism, 96 to a Llama of 25 million random parameters. At most 128 new tokens,
most answers ended earlier by an end token. ``equal``: all prompts of 24 tokens; ``ending``: prompts of 8 to 64.
Two replicas can be twice as fast only where two cores are free: the script prints how busy the machine was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for a replica with one core
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import torch
from engines import random_llama, requests

from esr.steering.engine import Engine, Request
from esr.steering.make import load_for, make_engine
from esr.steering.settings import EngineSettings
from esr.subjects.loading import Subject
from esr.subjects.published import published_subject
from esr.subjects.spec import SubjectSpec

REQUESTS = {"organism": 768, "25m": 96}


def seconds(engine: Engine, job: list[Request]) -> float:
    """Wall time of the job."""
    began = time.perf_counter()
    assert sum(1 for _ in engine.generate(job)) == len(job)
    return time.perf_counter() - began


def job_of(subject: Subject, kind: str, size: str) -> list[Request]:
    """The requests, by copying those of benchmarks/engines.py under other names."""
    made = requests(subject, kind, "add")
    return [replace(made[k % len(made)], id=f"{k}") for k in range(REQUESTS[size])]


def compare(spec: SubjectSpec, options: argparse.Namespace, size: str) -> None:
    """Print the ratio for one subject and each kind of job."""
    alone = EngineSettings.model_validate({"backend": options.backend, "vllm": {"cache_gib": 0.25}})
    several = alone.model_copy(update={"replicas": options.replicas})
    subject = load_for(spec, alone)
    torch.set_num_threads(1)  # loading may have chosen more
    engines = {"one engine": make_engine(subject, alone), "replicas": make_engine(subject, several, spec)}
    for kind in options.kinds:
        job = job_of(subject, kind, size)
        answers = [{r.id: r.token_ids for r in engine.generate(job)} for engine in engines.values()]
        same = sum(answers[0][id] == answers[1][id] for id in answers[0])
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(options.rounds):
            for name, engine in engines.items():
                taken[name].append(seconds(engine, job))
        medians = {name: statistics.median(found) for name, found in taken.items()}
        tokens = sum(map(len, answers[0].values()))
        ratio = medians["one engine"] / medians["replicas"]
        print(f"{ratio:5.2f}  {options.replicas} replicas / one engine, {options.backend}, {size}, {kind};", end=" ")
        print(f"{same} of {len(job)} answers identical, {tokens / len(job):.0f} tokens each")
        rates = ", ".join(f"{name} {tokens / each:,.0f}" for name, each in medians.items())
        print(f"       tokens/s: {rates}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for engine in engines.values():
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--backend", choices=["hf", "vllm"], default="hf")
    parser.add_argument("--sizes", nargs="+", choices=list(REQUESTS), default=list(REQUESTS))
    parser.add_argument("--kinds", nargs="+", choices=["equal", "ending"], default=["equal", "ending"])
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side (default 3)")
    options = parser.parse_args()
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            spec = published_subject("organism").spec if size == "organism" else random_llama(Path(folder))
            compare(spec, options, size)


if __name__ == "__main__":
    main()
