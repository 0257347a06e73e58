"""How many rows fit into the memory that is free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from esr.steering.engine import Request
from esr.subjects.loading import Subject
from esr.subjects.threads import is_small

_SHARE = 0.4  # of what is free: cohorts hold memory for up to twice the rows that are left of them (see Cohort)
_MOST_ROWS = {"cpu": 128, "cuda": 512}  # more gain little (1.09 at 320, docs/log.md), and a stop waits for all of them
_MOST_ROWS_SMALL = 320  # of a small model on the CPU: it pays for starting operations more than for doing them


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be allocated now; None if the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def bytes_per_row(subject: Subject, columns: int) -> int:
    """What one row of so many tokens takes: keys and values of every layer, and the step's logits and activations."""
    config: Any = subject.model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    number = subject.model.get_input_embeddings().weight.element_size()
    kept = 2 * subject.n_layers * heads * width * columns * number
    return int(kept + 32 * config.vocab_size + 16 * 4 * config.hidden_size * number)


def fitting_rows(subject: Subject, requests: Sequence[Request], free: int | None = None, *, sharing: int = 1) -> int:
    """Most rows in flight for these requests: as many of the longest as fit into ``_SHARE`` of the free memory of the
    fullest device, up to a number beyond which nothing is gained. ``free``: bytes, measured if not given;
    ``sharing``: engines that share them."""
    small = is_small(sum(p.numel() for p in subject.model.parameters()), subject.device)
    most = _MOST_ROWS_SMALL if small else _MOST_ROWS.get(subject.device.type, 128)
    devices = {p.device for p in subject.model.parameters()}
    sizes = [free] if free is not None else [f for f in map(free_bytes, devices) if f is not None]
    if not sizes or not requests:
        return most
    longest = max(len(r.prompt_ids) + len(r.prefill_ids) + r.sampling.max_new_tokens for r in requests)
    # a model spread over devices spreads its keys and values too
    each = bytes_per_row(subject, longest) / len(devices)
    return max(1, min(most, int(_SHARE * min(sizes) / (sharing * each))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left, whatever the library calls it."""
    said = "can't allocate memory", "could not create a primitive"  # PyTorch on a CPU, and oneDNN
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)
