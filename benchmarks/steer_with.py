"""One way of steering, as its own documentation shows it: the worker of ``benchmarks/tools.py``.

    python benchmarks/steer_with.py TOOL FOLDER

Runs in the tool's own environment, so it imports torch, transformers and that tool only. FOLDER holds ``model``,
``job.json`` ({layer, prompts, new_tokens}) and ``vectors.npy`` ([directions, d_model], the boost included); every
prompt has the same number of tokens. For each line on stdin, ``single N`` (the first N directions, one after another,
all prompts in one batch: how these tools are used) or ``batch N`` (the same in one hand-written batch), prints
{"seconds", "answers"} as JSON: seconds of CPU time with one thread (OMP_NUM_THREADS), else of the clock; lists of ids.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Run = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(ids [B, T], vectors [d] or [B, d]) -> new tokens [B, new_tokens]."""


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def options(job: dict[str, Any]) -> dict[str, Any]:
    return {"do_sample": False, "max_new_tokens": job["new_tokens"], "eos_token_id": None, "pad_token_id": 0}


def hooks(folder: Path, job: dict[str, Any]) -> Run:
    """A forward hook around ``generate``: what people write themselves."""
    model = load(folder)
    layer = model.model.layers[job["layer"]]

    def run(ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        add = vectors if vectors.dim() == 1 else vectors.unsqueeze(1)

        def steer(_module: Any, _args: Any, output: Any) -> Any:
            return (output[0] + add, *output[1:]) if isinstance(output, tuple) else output + add

        handle = layer.register_forward_hook(steer)
        try:
            return model.generate(ids, attention_mask=torch.ones_like(ids), **options(job))[:, ids.shape[1] :]
        finally:
            handle.remove()

    return run


def saelens(folder: Path, job: dict[str, Any]) -> Run:
    """SAELens on TransformerLens: a hook at the SAE's place in the model, as in its tutorial on steering."""
    from sae_lens import SAETransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = SAETransformerBridge.boot_transformers(str(folder / "model"), device="cpu", tokenizer=tokenizer)
    # a hook under TransformerLens 2's name for it, hook_resid_post, is never called, and nothing says so
    place = f"blocks.{job['layer']}.hook_out"

    def run(ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        add = vectors if vectors.dim() == 1 else vectors.unsqueeze(1)
        with model.hooks(fwd_hooks=[(place, lambda h, hook: h + add)]):  # noqa: ARG005
            out = model.generate(
                ids, max_new_tokens=job["new_tokens"], stop_at_eos=False, do_sample=False, verbose=False,
                return_type="tokens", prepend_bos=False,
            )  # fmt: skip
        return out[:, ids.shape[1] :]

    return run


def nnsight(folder: Path, job: dict[str, Any]) -> Run:
    """nnsight: an intervention at every step of ``generate``."""
    from nnsight import LanguageModel
    from transformers import AutoTokenizer

    model = LanguageModel(load(folder), tokenizer=AutoTokenizer.from_pretrained(folder / "model"))
    layer = model.model.layers[job["layer"]]

    def run(ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        add = vectors if vectors.dim() == 1 else vectors.unsqueeze(1)
        with model.generate({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, **options(job)) as tracer:
            for _ in tracer.iter[: job["new_tokens"]]:
                layer.output = layer.output + add
            out = tracer.result.save()
        return out[:, ids.shape[1] :]

    return run


def repeng(folder: Path, job: dict[str, Any]) -> Run:
    """repeng: a control vector set on the wrapped model; a batch of vectors through its raw control."""
    from repeng import ControlModel

    model = ControlModel(load(folder), [job["layer"]])

    def run(ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        model.set_raw_control({job["layer"]: vectors if vectors.dim() == 1 else vectors.unsqueeze(1)})
        return model.generate(ids, attention_mask=torch.ones_like(ids), **options(job))[:, ids.shape[1] :]

    return run


def steering_vectors(folder: Path, job: dict[str, Any]) -> Run:
    """steering-vectors: ``SteeringVector.apply`` around ``generate``; it reshapes to one vector, so no batch."""
    from steering_vectors import SteeringVector

    model = load(folder)

    def run(ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        if vectors.dim() > 1:
            raise NotImplementedError("one vector at a time")
        with SteeringVector({job["layer"]: vectors}).apply(model):
            return model.generate(ids, attention_mask=torch.ones_like(ids), **options(job))[:, ids.shape[1] :]

    return run


TOOLS = {"hooks": hooks, "saelens": saelens, "nnsight": nnsight, "repeng": repeng, "steering-vectors": steering_vectors}


def main() -> None:
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    folder = Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    vectors = torch.from_numpy(np.load(folder / "vectors.npy"))
    prompts = torch.tensor(job["prompts"])
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints does not disturb the answers
    run = TOOLS[sys.argv[1]](folder, job)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        mode, count = line.split()
        chosen = vectors[: int(count)]
        began = clock()
        try:
            with torch.no_grad():
                if mode == "single":
                    new = torch.cat([run(prompts, vector) for vector in chosen])
                else:
                    new = run(prompts.repeat(len(chosen), 1), chosen.repeat_interleave(len(prompts), 0))
            result = {"seconds": clock() - began, "answers": new.tolist()}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    main()
