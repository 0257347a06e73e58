"""Throughput of the engines: steered over unsteered, and vLLM over Hugging Face, on this machine.

    python benchmarks/engines.py [--backends hf vllm] [--sizes organism 25m] [--kinds equal ending] [--rounds 9]

For both backends, run it in the environment that `make test-vllm` makes. 64 requests in flight, each with an add of
its own, or an add and a clamp; no two share a direction. ``equal``: 64 answers of 128 tokens. ``ending``: 192 answers
of at most 128 tokens to prompts of 8 to 64, most ended earlier by an end token. Sides take turns, there and back
again, one thread each; a ratio is the median over the rounds, and unsteered over itself shows what the machine adds.
For hf the steering's own share of the time is measured besides, call by call: what the ratio cannot resolve.
On the organism a clamp encodes its whole dictionary (TopK) where its latent may be active; 25m has a ReLU SAE.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the same process, the same threads, for both
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import numpy as np
import torch

from esr.steering import batch
from esr.steering.engine import Engine, Request, Sampling
from esr.steering.interventions import Add, Clamp, Direction
from esr.steering.make import load_for, make_engine
from esr.steering.plan import LayerPlan
from esr.steering.settings import EngineSettings
from esr.subjects.loading import Subject
from esr.subjects.published import published_subject
from esr.subjects.spec import SaeSpec, SubjectSpec, packaged_folder

BATCH = 64
STEERING = ("none", "add", "add, clamp")
AGAIN = "none again"


def random_llama(folder: Path) -> SubjectSpec:
    """A Llama of 25 million random parameters with a random SAE of 4,096 latents, and the organism's tokenizer."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(packaged_folder("organism"))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1376, num_hidden_layers=8,
            num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512, initializer_range=0.05,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sae = StandardSAE(StandardSAEConfig(d_in=512, d_sae=4096))
    torch.nn.init.normal_(sae.W_enc, std=512**-0.5)
    torch.nn.init.normal_(sae.W_dec)
    sae.save_model(folder / "sae")
    return SubjectSpec(model=str(folder), sae=SaeSpec(path=str(folder / "sae")), steer_layer=4)


def requests(subject: Subject, kind: str, steering: str) -> list[Request]:
    """The job: no two requests share their interventions."""
    rng = np.random.default_rng(0)
    reader = subject.require_reader()
    vocabulary = subject.model.get_input_embeddings().num_embeddings
    made = []
    for k in range(BATCH if kind == "equal" else 3 * BATCH):
        prompt = 24 if kind == "equal" else int(rng.integers(8, 65))
        ids = tuple(int(t) for t in rng.integers(8, vocabulary, size=prompt))
        add = Add(Direction(f"latent:{k}", reader.direction(k)), 4.0, subject.steer_layer)
        clamp = Clamp(500 + k, 3.0, subject.read_layer)
        own = {"none": (), "add": (add,), "add, clamp": (add, clamp)}[steering]
        made.append(Request(f"r{k}", ids, own, Sampling(0, max_new_tokens=128)))
    return made


def tokens_per_second(engine: Engine, job: Sequence[Request]) -> float:
    """Generated tokens over seconds; on a CPU seconds of its time, so that other work on the machine does not count."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    generated = sum(len(response.token_ids) for response in engine.generate(job))
    return generated / (clock() - began)


def own_share(engine: Engine, job: Sequence[Request]) -> float:
    """Share of the seconds that the hf engine spends in steering itself: laying out, adding, clamping, counting."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent += time.perf_counter() - began

        return call

    with ExitStack() as patches:
        for owner, name in ((batch, "plans_for"), *((LayerPlan, n) for n in ("prepare", "apply", "step", "commit"))):
            patches.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        began = time.perf_counter()
        for _ in engine.generate(job):
            pass
        return spent / (time.perf_counter() - began)


def in_turns(sides: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Each side's results, round by round; every other round goes through the sides backwards."""
    results: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side()  # not counted: caches and allocators
    for number in range(rounds):
        for at in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            results[at].append(sides[at]())
    return results


def ratio(one: Sequence[float], *others: Sequence[float]) -> float:
    """One side over the mean of the others in its round, median over the rounds."""
    return statistics.median(rate / statistics.mean(other) for rate, *other in zip(one, *others, strict=True))


def compare(spec: SubjectSpec, backends: Sequence[str], kind: str, rounds: int) -> None:
    """Print one table for a model and a kind of job."""
    engines: dict[str, Engine] = {}
    for backend in backends:
        settings = EngineSettings.model_validate({"backend": backend, "batch_size": BATCH})
        subject = load_for(spec, settings)
        engines[backend] = make_engine(subject if kind == "ending" else replace(subject, end_ids=frozenset()), settings)
    torch.set_num_threads(1)  # loading may have chosen more, which would count twice in CPU time
    jobs = {steering: requests(subject, kind, steering) for steering in STEERING}
    names = [(b, s) for b in backends for s in (*STEERING, AGAIN)]
    sides = [partial(tokens_per_second, engines[b], jobs["none" if s == AGAIN else s]) for b, s in names]
    found = dict(zip(names, in_turns(sides, rounds), strict=True))
    for backend in backends:
        none = found[backend, "none"], found[backend, AGAIN]
        for steering in STEERING[1:]:
            own = f"; steering's own share {own_share(engines[backend], jobs[steering]):.1%}" if backend == "hf" else ""
            print(f"  {ratio(found[backend, steering], *none):5.2f}  {backend}: {steering} / none{own}")
        print(f"  {ratio(*none):5.2f}  {backend}: none / none")
    for steering in STEERING if len(backends) == 2 else ():
        hf, vllm = ({r.id: r.token_ids for r in engines[b].generate(jobs[steering])} for b in ("hf", "vllm"))
        same, tokens = sum(hf[id] == vllm[id] for id in hf), statistics.mean(map(len, hf.values()))
        over = ratio(found["vllm", steering], found["hf", steering])
        print(f"  {over:5.2f}  vllm / hf: {steering}; {same} of {len(hf)} answers identical, {tokens:.0f} tokens each")
    rates = (f"{b} {s} {statistics.median(found[b, s]):,.0f}" for b in backends for s in STEERING)
    print("         tokens/s: " + ", ".join(rates), flush=True)
    for engine in engines.values():
        if hasattr(engine, "close"):
            engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["hf", "vllm"], choices=["hf", "vllm"])
    parser.add_argument("--sizes", nargs="+", default=["organism", "25m"], choices=["organism", "25m"])
    parser.add_argument("--kinds", nargs="+", default=["equal", "ending"], choices=["equal", "ending"])
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of each side (default 9)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if "vllm" in options.backends:
        from esr.errors import UserError
        from esr.steering.vllm.start import check_version

        try:
            check_version()
        except UserError as error:
            parser.error(str(error))
    print(f"batch {BATCH}, one thread, float32")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            spec = published_subject("organism").spec if size == "organism" else random_llama(Path(folder))
            for kind in options.kinds:
                print(f"\n{size}, {kind}", flush=True)
                compare(spec, options.backends, kind, options.rounds)


if __name__ == "__main__":
    main()
