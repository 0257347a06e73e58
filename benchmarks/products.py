"""What oneDNN and the attention of one token are worth on this CPU: ours over PyTorch's own way, ratios first.

    python benchmarks/products.py [--sizes organism 25m] [--rounds 3] [--threads 1]

First by themselves, in float32: a linear layer of 16, 64 and 128 rows (PyTorch takes MKL), and a decoding step's
attention of 128 rows over some columns. Then inside of the engine: the job of ``engines.py`` (each request its own add)
with 128 requests, one of the two taken away at a time; and up to 320 rows in flight over 128. Sides take turns, there
and back again; a ratio is the median over the rounds. The answers of all sides are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from engines import in_turns, random_llama, ratio, requests
from torch import Tensor, nn

from esr.steering import cohorts
from esr.steering.hf import HFEngine
from esr.subjects.linear import linear
from esr.subjects.loading import Subject, load_subject
from esr.subjects.published import published_subject

SHAPES = ((128, 128), (128, 384), (512, 512), (512, 1376), (1376, 512))
HEADS = ((4, 32), (8, 64))
COLUMNS = (64, 128)
ROWS = 128
PRODUCTS = 20  # in one timing


def speed(work: Callable[[], object], times: int = 1) -> float:
    """How often a second."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


def over(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    """Ours over theirs."""
    return ratio(*in_turns([partial(speed, work, PRODUCTS) for work in (ours, theirs)], 3 * rounds))


@torch.no_grad()
def products(rounds: int) -> None:
    """Linear layers by themselves."""
    for rows in (16, 64, ROWS):
        found = []
        for inputs, outputs in SHAPES:
            x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
            value = over(partial(linear, x, weight), partial(nn.functional.linear, x, weight), rounds)
            found.append(f"{value:.2f} ({inputs} to {outputs})")
        print(f"  linear, {rows} rows: {', '.join(found)}", flush=True)


@torch.no_grad()
def attention(rounds: int) -> None:
    """A step's attention by itself; four layers take turns, as in a model, so that little stays in the cache."""
    for heads, width in HEADS:
        found = []
        for columns in COLUMNS:
            query, mask = torch.randn(ROWS, heads, 1, width), torch.zeros(ROWS, 1, 1, columns)
            like = torch.empty(1, heads, 1, width)

            def pairs(like: Tensor = like) -> list[tuple[Tensor, Tensor]]:
                keys, values = ([cohorts._room(like, ROWS, 160).normal_() for _ in range(4)] for _ in range(2))
                return list(zip(keys, values, strict=True))

            def run(
                function: Callable[..., object], stored: list[tuple[Tensor, Tensor]], columns: int = columns,
                query: Tensor = query, mask: Tensor = mask,
            ) -> None:  # fmt: skip
                for keys, values in stored:
                    function(None, query, keys[:, :, :columns], values[:, :, :columns], mask)

            ours = partial(run, cohorts._one_token, pairs())
            with without_attention():
                theirs = partial(run, cohorts.sdpa_attention_forward, pairs())
            found.append(f"{over(ours, theirs, rounds):.2f} ({columns} columns)")
        print(f"  attention, {heads} heads of {width}: {', '.join(found)}", flush=True)


@contextmanager
def without_onednn(subject: Subject) -> Iterator[None]:
    """The model's linear layers as PyTorch runs them."""
    ours = {module: module.__dict__.pop("forward") for module in subject.model.modules() if type(module) is nn.Linear}
    try:
        yield
    finally:
        for module, forward in ours.items():
            module.forward = forward


def without_attention() -> AbstractContextManager[object]:
    """PyTorch's attention, and keys and values laid out for it."""
    return patch.object(cohorts, "is_exact", lambda _: False)


def engine(size: str, folder: Path, rounds: int, threads: int) -> None:
    """The engine with either taken away."""
    spec = published_subject("organism").spec if size == "organism" else random_llama(folder)
    subject = replace(load_subject(spec), end_ids=frozenset())
    torch.set_num_threads(threads)
    jobs = [replace(r, id=f"{k}{r.id}") for k in range(5) for r in requests(subject, "equal", "add")]
    answers: list[dict[str, tuple[int, ...]]] = []

    def run(rows: int, count: int, change: Callable[[], AbstractContextManager[object]]) -> float:
        with change():
            began = time.perf_counter()
            found = {r.id: r.token_ids for r in engines[rows].generate(jobs[:count])}
            answers.append(found)
            return len(found) / (time.perf_counter() - began)

    engines = {rows: HFEngine(subject, rows) for rows in (ROWS, 320)}
    sides = [
        partial(run, ROWS, ROWS, change)
        for change in (nullcontext, partial(without_onednn, subject), without_attention)
    ]
    whole, no_onednn, no_attention = in_turns(sides, rounds)
    many, few = in_turns([partial(run, rows, 320, nullcontext) for rows in (320, ROWS)], rounds)
    print(f"  {ratio(whole, no_onednn):.2f}  {size}: with oneDNN over without")
    print(f"  {ratio(whole, no_attention):.2f}  {size}: with the attention of one token over PyTorch's")
    print(f"  {ratio(many, few):.2f}  {size}: 320 rows in flight over 128")
    same = sum(all(found.get(id, ids) == ids for found in answers) for id, ids in answers[0].items())
    print(f"        {same} of {len(answers[0])} answers the same on all sides", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["organism", "25m"], choices=["organism", "25m"])
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"ours over PyTorch's own way, float32, {options.threads} threads")
    products(options.rounds)
    attention(options.rounds)
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            engine(size, Path(folder), options.rounds, options.threads)


if __name__ == "__main__":
    main()
