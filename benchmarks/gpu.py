"""Steered decoding on a GPU: random weights in the shape of Llama-3.1-8B, a dictionary of 65,536 latents, bf16.

    PYTHONPATH=src python benchmarks/gpu.py            # one GPU of 24 GB or more; stops by itself within 8 minutes
    PYTHONPATH=src python benchmarks/gpu.py --tiny     # the same code in seconds on a CPU (run by the tests)

Needs torch, transformers, numpy and pydantic, and this repository's ``src`` on the path; no weights, no network.
For batches of 1 to 256, every row with interventions of its own: tokens per second unsteered, with an add, and with an
add and a clamp, the ratios, and how much of the memory bandwidth (measured first, by a copy) a decoding step uses:
(weights + keys and values it has to read) / time / bandwidth. Time is that of decoding, measured by the difference
between a long and a short answer, so that the prompts' share drops out. On a GPU each batch is measured twice: by
ordinary steps, and by recorded ones (``cuda_graphs`` in ``[engine]``; what recording costs included), with how many
answers are the same, of which bf16 makes no promise.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from esr.errors import UserError
from esr.steering.engine import Request, Sampling
from esr.steering.graphs import cuda_graphs
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add, Clamp, Direction, Intervention
from esr.subjects.latents import LatentReader
from esr.subjects.layers import decoder_layers
from esr.subjects.loading import Subject
from esr.subjects.spec import SubjectSpec

BUDGET = 420.0  # seconds after which no further measurement begins
KINDS = ("none", "add", "add, clamp")


@dataclass(frozen=True)
class Size:
    """What is measured: model shape, dictionary, batches, tokens."""

    model: dict[str, int]
    latents: int
    batches: tuple[int, ...]
    prompt: int
    short: int
    long: int


LLAMA_8B = Size(
    {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    },
    latents=65_536, batches=(1, 4, 16, 64, 128, 256), prompt=64, short=4, long=68,
)  # fmt: skip
TINY = Size(
    {
        "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    },
    latents=256, batches=(1, 4), prompt=8, short=2, long=10,
)  # fmt: skip


class ReluSae(torch.nn.Module):
    """What ``LatentReader`` asks of a SAELens SAE of the standard architecture, with random weights."""

    def __init__(self, width: int, latents: int, dtype: torch.dtype) -> None:
        super().__init__()
        metadata = SimpleNamespace(hook_name=None)
        self.cfg = SimpleNamespace(
            d_in=width, d_sae=latents, architecture=lambda: "standard", reshape_activations="none",
            normalize_activations="none", metadata=metadata,
        )  # fmt: skip
        self.dtype = dtype
        self.W_enc = torch.nn.Parameter(torch.randn(width, latents, dtype=dtype) * width**-0.5, requires_grad=False)
        self.W_dec = torch.nn.Parameter(torch.randn(latents, width, dtype=dtype) * width**-0.5, requires_grad=False)
        self.b_enc = torch.nn.Parameter(torch.zeros(latents, dtype=dtype), requires_grad=False)

    def process_sae_in(self, h: torch.Tensor) -> torch.Tensor:
        return h.to(self.dtype)

    def activation_fn(self, pre: torch.Tensor) -> torch.Tensor:
        return pre.relu()


def random_subject(size: Size, device: torch.device, dtype: torch.dtype) -> Subject:
    """A subject of random weights, made where it runs."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlamaForCausalLM(LlamaConfig(**size.model)).eval().requires_grad_(False)
            sae = ReluSae(size.model["hidden_size"], size.latents, dtype)
    finally:
        torch.set_default_dtype(before)
    layers = decoder_layers(model)
    tokenizer: Any = SimpleNamespace(pad_token_id=0, decode=lambda *_, **__: "")
    return Subject(
        spec=SubjectSpec(model="random", steer_layer=len(layers) // 2), model=model, tokenizer=tokenizer,
        layers=layers, reader=LatentReader(sae), steer_layer=len(layers) // 2, read_layer=len(layers) // 2,
        d_model=size.model["hidden_size"], n_layers=len(layers), context=size.model["max_position_embeddings"],
        device=device, end_ids=frozenset(), fingerprint="random",
    )  # fmt: skip


def requests(subject: Subject, size: Size, batch: int, kind: str, new: int) -> list[Request]:
    """One row each, no two with the same direction."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(batch):
        add = Add(Direction(f"latent:{k}", subject.require_reader().direction(k)), 4.0, subject.steer_layer)
        clamp = Clamp(size.latents // 2 + k % (size.latents // 2), 1.0, subject.read_layer)
        own: tuple[Intervention, ...] = {"none": (), "add": (add,), "add, clamp": (add, clamp)}[kind]
        ids = tuple(int(t) for t in rng.integers(0, size.model["vocab_size"], size=size.prompt))
        made.append(Request(f"r{k}", ids, own, Sampling(0, max_new_tokens=new)))
    return made


def seconds(engine: HFEngine, job: list[Request]) -> float:
    """Wall time of a job; each answer has to be as long as asked for."""
    began = time.perf_counter()
    answers = list(engine.generate(job))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took = time.perf_counter() - began
    assert all(len(a.token_ids) == r.sampling.max_new_tokens for a in answers for r in job[:1])
    return took


def seconds_per_step(engine: HFEngine, subject: Subject, size: Size, batch: int) -> dict[str, float]:
    """Wall time of a decoding step by kind of request: medians of three rounds."""
    jobs = {(kind, new): requests(subject, size, batch, kind, new) for kind in KINDS for new in (size.short, size.long)}
    seconds(engine, jobs["add, clamp", size.short])  # kernels and allocator
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(3):
        for kind in KINDS:
            taken = seconds(engine, jobs[kind, size.long]) - seconds(engine, jobs[kind, size.short])
            times[kind].append(max(taken, 1e-9) / (size.long - size.short))
    return {kind: sorted(times[kind])[1] for kind in KINDS}


def agreement(engines: list[HFEngine], subject: Subject, size: Size, batch: int) -> str:
    """How many greedy answers of adds and clamps the engines have in common."""
    job = requests(subject, size, batch, "add, clamp", size.long)
    one, other = ({a.id: a.token_ids for a in engine.generate(job)} for engine in engines)
    return f"; {sum(one[r.id] == other[r.id] for r in job)} of {batch} answers the same"


def bandwidth(device: torch.device, gib: float) -> float:
    """Bytes per second of a large copy, reads and writes together."""
    source = torch.empty(int(gib * 2**30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * source.numel() / (time.perf_counter() - began))
    return best


def bytes_per_step(subject: Subject, size: Size, batch: int) -> float:
    """What a decoding step has to read: every weight but the embedding's, and the keys and values, halfway through."""
    weights = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    embedding = subject.model.get_input_embeddings().weight
    width = size.model["hidden_size"] // size.model["num_attention_heads"]
    columns = size.prompt + (size.short + size.long) / 2
    kept = 2 * size.model["num_hidden_layers"] * size.model["num_key_value_heads"] * width * columns
    return weights - embedding.numel() * embedding.element_size() + batch * kept * embedding.element_size()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on a CPU if there is no GPU")
    options = parser.parse_args()
    began = time.perf_counter()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is there; use --tiny to try the script on a CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size = TINY if options.tiny else LLAMA_8B
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    subject = random_subject(size, device, dtype)
    limit = bandwidth(device, 0.01 if options.tiny else 2)
    parameters = sum(p.numel() for p in subject.model.parameters())
    print(f"{name}, torch {torch.__version__}, {dtype}; {parameters / 1e9:.3g}B parameters, {size.latents} latents")
    print(f"a copy moves {limit / 1e9:,.0f} GB/s; {size.prompt} tokens of prompt, {size.long} new ones")
    columns = f"{'batch':>5} {'steps':>8} {'add/none':>9} {'add, clamp/none':>16} {'bandwidth used':>15}"
    print(f"{columns}   tokens/s {', '.join(KINDS)}")
    for batch in size.batches:
        engines = {"ordinary": HFEngine(subject, batch)}
        if device.type == "cuda":
            engines["recorded"] = HFEngine(subject, batch, cuda_graphs(subject))
        for steps, engine in engines.items():
            if time.perf_counter() - began > BUDGET:
                print(f"{batch:5} {steps:>8} not run: {BUDGET:.0f} s are over")
                continue
            try:
                step = seconds_per_step(engine, subject, size, batch)
                same = agreement(list(engines.values()), subject, size, batch) if steps == "recorded" else ""
            except (RuntimeError, UserError) as error:  # goes on unattended
                print(f"{batch:5} {steps:>8} failed: {error}", flush=True)
                continue
            none, add, clamp = (step[kind] for kind in KINDS)
            used = bytes_per_step(subject, size, batch) / add / limit
            rates = ", ".join(f"{batch / step[kind]:,.0f}" for kind in KINDS)
            print(f"{batch:5} {steps:>8} {none / add:9.2f} {none / clamp:16.2f} {used:14.0%}    {rates}{same}")
            print(f"      ({time.perf_counter() - began:.0f} s so far)", flush=True)


if __name__ == "__main__":
    main()
