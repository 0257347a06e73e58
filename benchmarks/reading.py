"""Reading a whole dictionary over many tokens, against encoding densely with SAELens, in one run.

    python benchmarks/reading.py                                      # every architecture, 10,000 tokens
    python benchmarks/reading.py --archs standard --tokens 100000     # some ten minutes on one core

Random residual vectors in texts of 128 tokens and random SAEs made with SAELens. Both sides give, for every text and
latent, the largest activation, the sum, and at how many tokens it is active. Dense: ``sae.encode`` of 4,096 tokens at a
time (all of them at once would take 26 GB per 100,000), then the three statistics. The sides take turns, 4,096 tokens
each, so that a busy machine slows both. Extra memory: the highest resident set size while a side works, above that at
the beginning of its turn (Linux), the results of the turn included.
"""

from __future__ import annotations

import argparse
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esr.subjects.latents import Activity, LatentReader
from esr.subjects.tiles import activities

ARCHS = ("standard", "jumprelu", "topk", "batchtopk", "gated")
TEXT = 128
TURN = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--width", type=int, default=512, help="d_model")
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--archs", nargs="+", default=list(ARCHS), choices=ARCHS)
    asked = parser.parse_args()
    print(
        f"{asked.latents:,} latents, width {asked.width}, {asked.tokens:,} tokens, {torch.get_num_threads()} thread(s)"
    )
    print("dense / ours  SAE        tokens/s ours, dense   extra memory ours, dense   largest difference of a maximum")
    for arch in asked.archs:
        print(line(arch, asked.latents, asked.width, asked.tokens), flush=True)


def line(arch: str, latents: int, width: int, tokens: int) -> str:
    """One row of the table."""
    reader = LatentReader(random_sae(arch, width, latents))
    generator = torch.Generator().manual_seed(0)
    seconds, extra, worst = {"ours": 0.0, "dense": 0.0}, {"ours": 0, "dense": 0}, 0.0
    for side in seconds:  # the first call of a process warms up threads and allocator
        SIDES[side](reader, torch.randn(TEXT, width))
    done = 0
    while done < tokens:
        h = torch.randn(min(TURN, -(-(tokens - done) // TEXT) * TEXT), width, generator=generator)
        maxima = {}
        for side in ("ours", "dense") if done // TURN % 2 else ("dense", "ours"):
            before = start_watching()
            began = time.perf_counter()
            found = SIDES[side](reader, h)
            seconds[side] += time.perf_counter() - began
            extra[side] = max(extra[side], highest() - before)
            maxima[side] = np.stack([activity.maximum for activity in found])
            del found
        worst = max(worst, float(np.abs(maxima["ours"] - maxima["dense"]).max()))
        done += len(h)
    speed = {side: done / s for side, s in seconds.items()}
    memory = {side: f"{b / 2**30:.2f} GB" for side, b in extra.items()}
    return (
        f"{speed['ours'] / speed['dense']:12.2f}  {arch:9s}  {speed['ours']:13.0f}, {speed['dense']:5.0f}   "
        f"{memory['ours']:>16s}, {memory['dense']:>7s}   {worst:31.1e}"
    )


def ours(reader: LatentReader, h: torch.Tensor) -> list[Activity]:
    return activities(reader, list(torch.split(h, TEXT)))


@torch.no_grad()
def dense(reader: LatentReader, h: torch.Tensor) -> list[Activity]:
    encoded = reader.sae.encode(h)
    found = []
    for f in torch.split(encoded, TEXT):
        maximum, total, active = f.amax(0), f.sum(0, dtype=torch.float64), (f > 0).sum(0)
        found.append(Activity(len(f), maximum.numpy(), total.numpy(), active.numpy()))
    return found


SIDES: dict[str, Callable[[LatentReader, torch.Tensor], list[Activity]]] = {"ours": ours, "dense": dense}


def random_sae(arch: str, d_in: int, d_sae: int) -> Any:
    """With about a hundredth of the latents active; BatchTopK as SAELens saves it for inference, a JumpReLU."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_class("jumprelu" if arch == "batchtopk" else arch)
    options = {"k": 64} if arch == "topk" else {}
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=SAEMetadata(), apply_b_dec_to_input=False, **options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sae.named_parameters():
        scale, shift = {"W_enc": (d_in**-0.5, 0.0), "threshold": (0.0, 2.3), "W_dec": (d_in**-0.5, 0.0)}.get(
            name, (0.01, -2.3 if arch in ("standard", "gated") else 0.0)
        )
        parameter.data.normal_(generator=generator).mul_(scale).add_(shift)
    if arch == "batchtopk":  # one threshold for all latents
        sae.threshold.data.fill_(2.3)
    return sae.requires_grad_(False)


def start_watching() -> int:
    """Forget the highest resident set size so far; the present one, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def highest() -> int:
    """The highest resident set size since ``start_watching``, in bytes."""
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, name
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main()
