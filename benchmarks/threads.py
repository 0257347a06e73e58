"""How many threads a small model should have on a CPU: time of a batch of steered-sized decoding, one thread over all.

    python benchmarks/threads.py

Random Llamas of growing width, 64 requests of 24 + 32 tokens by the Hugging Face engine, in processes of their own:
OMP_NUM_THREADS=1, and as many as torch takes by itself. ``esr.subjects.threads`` holds the limit that follows. On a
machine where others work too, many threads wait for each other at every matrix: then the ratio is higher.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTHS = (128, 256, 512, 768, 1024)
REQUESTS, PROMPT, NEW = 64, 24, 32


def model_folder(folder: Path, width: int) -> int:
    """Save a random Llama of 4 layers; returns its number of parameters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1000, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
            num_attention_heads=width // 32, num_key_value_heads=width // 32, max_position_embeddings=256,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def timed(folder: str) -> float:
    """Median seconds of three batches, after one to warm up."""
    import torch

    from esr.steering.engine import Request, Sampling
    from esr.steering.hf import HFEngine
    from esr.subjects.loading import load_subject
    from esr.subjects.spec import SubjectSpec

    if "OMP_NUM_THREADS" not in os.environ:
        threads = torch.get_num_threads()
    subject = load_subject(SubjectSpec(model=folder, steer_layer=1, device="cpu"))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)  # what torch takes by itself, whatever loading chose
    engine = HFEngine(subject, REQUESTS)
    requests = [
        Request(str(i), tuple(range(i, i + PROMPT)), sampling=Sampling(temperature=1.0, max_new_tokens=NEW), seed=i)
        for i in range(REQUESTS)
    ]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        list(engine.generate(requests))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timed", metavar="FOLDER", help=argparse.SUPPRESS)  # what the processes are called with
    options = parser.parse_args()
    if options.timed:
        print(timed(options.timed))
        return
    print(f"{os.cpu_count()} CPUs\n{'parameters':>12} {'one thread':>11} {'all':>8} {'all / one':>10}")
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as folder:
            parameters = model_folder(Path(folder), width)
            found = []
            for threads in ("1", None):
                env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
                env |= {} if threads is None else {"OMP_NUM_THREADS": threads}
                command = [sys.executable, __file__, "--timed", folder]
                found.append(float(subprocess.run(command, env=env, check=True, capture_output=True).stdout))
        print(f"{parameters:>12,} {found[0]:>9.2f} s {found[1]:>6.2f} s {found[1] / found[0]:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
