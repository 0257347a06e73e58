"""How many threads torch gives a model on the CPU."""

from __future__ import annotations

import os

import torch

SMALL = 5_000_000
"""Parameters. Below, the threads wait for each other at every small matrix: two are faster on a machine that does
nothing else, and many times slower where others work too (measured at 1 and 4 million, not above:
``benchmarks/threads.py``, ``docs/log.md``)."""
_AT_FIRST = torch.get_num_threads()


def is_small(parameters: int, device: torch.device) -> bool:
    """Whether starting operations takes a model of so many parameters longer than doing them."""
    return device.type == "cpu" and parameters < SMALL


def choose_threads(parameters: int, device: torch.device) -> None:
    """One thread for a small model on the CPU, else as many as torch took at first. A number that the user chose
    (OMP_NUM_THREADS) stays as it is. For the whole process: torch knows nothing smaller."""
    if "OMP_NUM_THREADS" not in os.environ and device.type == "cpu":
        torch.set_num_threads(1 if is_small(parameters, device) else _AT_FIRST)
