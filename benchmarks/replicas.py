"""Throughput of one engine and of replicas, in one run: the ratio first.

    python benchmarks/replicas.py [--replicas 2] [--backend hf] [--size organism] [--rounds 3]

The same job each time: 256 requests, each steered by an add of its own, 128 new tokens. One engine in this process with
one thread, then the replicas, each with one CPU core, in turns; wall time, medians, after a run that is not counted.
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

from engines import random_llama, requests

from esr.steering.engine import Engine, Request
from esr.steering.make import load_for, make_engine
from esr.steering.settings import EngineSettings
from esr.subjects.published import published_subject


def seconds(engine: Engine, job: list[Request]) -> float:
    """Wall time of the job."""
    began = time.perf_counter()
    assert sum(1 for _ in engine.generate(job)) == len(job)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--backend", choices=["hf", "vllm"], default="hf")
    parser.add_argument("--size", choices=["organism", "25m"], default="organism")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec = published_subject("organism").spec if options.size == "organism" else random_llama(Path(folder))
        alone = EngineSettings.model_validate(
            {"backend": options.backend, "batch_size": 64, "vllm": {"cache_gib": 0.25}}
        )
        several = alone.model_copy(update={"replicas": options.replicas})
        subject = load_for(spec, alone)
        engines = {1: make_engine(subject, alone), options.replicas: make_engine(subject, several, spec)}
        job = [replace(r, id=f"{k} {r.id}") for k in range(4) for r in requests(subject, "equal", "add")]
        answers = [{r.id: r.token_ids for r in engine.generate(job)} for engine in engines.values()]
        same = sum(answers[0][id] == answers[1][id] for id in answers[0])
        taken: dict[int, list[float]] = {n: [] for n in engines}
        for _ in range(options.rounds):
            for n, engine in engines.items():
                taken[n].append(seconds(engine, job))
        medians = {n: statistics.median(found) for n, found in taken.items()}
        tokens = sum(map(len, answers[0].values()))
        ratio = medians[1] / medians[options.replicas]
        print(f"{ratio:5.2f}  {options.replicas} replicas / 1 engine, {options.backend}, {options.size};", end=" ")
        print(f"{same} of {len(job)} answers identical")
        rates = ", ".join(f"{n}: {tokens / each:,.0f}" for n, each in medians.items())
        print(f"       tokens/s: {rates}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for engine in engines.values():
            engine.close()


if __name__ == "__main__":
    main()
