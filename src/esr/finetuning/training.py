"""Train one LoRA adapter with peft.

A plain loop rather than transformers' Trainer. The Trainer could be used (peft brings accelerate along), but it wraps
a model in ``DataParallel`` where it sees several GPUs, which multiplies the effective batch in silence, and its dropout
depends on everything drawn before. Here order and dropout of a step follow from (seed, epoch, step) alone, so that a
training which was killed and goes on from its last epoch ends, in float32 on a CPU, with the bits of one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import get_cosine_schedule_with_warmup

from esr.errors import UserError, missing_extra
from esr.finetuning.examples import write_whole
from esr.finetuning.masking import IGNORED, Encoded
from esr.finetuning.settings import TrainingSettings
from esr.studies.grading import Progress
from esr.studies.grid import content_key, generator
from esr.subjects.loading import Subject

MAX_GRADIENT_NORM = 1.0
RECORD = "training.json"
"""Beside an adapter: what it was trained with, and the loss."""


@dataclass(frozen=True)
class Trained:
    """A finished adapter."""

    folder: Path
    """What peft saves, and ``training.json``."""
    losses: tuple[float, ...]
    """Mean loss per learned token of each epoch, in nats, with dropout."""


def train_adapter(
    subject: Subject,
    examples: Sequence[Encoded],
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    progress: Progress,
    stage: str = "training",
) -> Trained:
    """Train an adapter into ``folder/adapter``, or find it there; ``subject`` is left with the adapter's modules in it.

    The loss of a step is the mean over all learned tokens of its ``batch`` examples. After each epoch
    ``folder/training.pt`` holds what is needed to go on. Raises UserError when peft is missing, nothing is learned, or
    the folder holds an adapter of other examples, settings, seed or weights.
    """
    if not any(example.learned for example in examples):
        raise UserError("a training learns at least one token", f"none in {len(examples)} examples")
    key = content_key(
        subject.spec.digest(), subject.fingerprint, settings.locked(), seed, [(e.ids, e.labels) for e in examples]
    )
    done = finished_adapter(folder)
    if done is not None:
        _check_key(json.loads((done.folder / RECORD).read_text())["key"], key, done.folder)
        return done
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        run = _Training(subject, examples, settings, seed, key)
        checkpoint = folder / "training.pt"
        if checkpoint.exists():
            run.load(checkpoint)
        progress.start(stage, settings.epochs * len(examples))
        progress.found(run.epoch * len(examples))
        while run.epoch < settings.epochs:
            run.train_epoch(progress)
            run.save(checkpoint)
        progress.end()
        partial = folder / "adapter.partial"
        shutil.rmtree(partial, ignore_errors=True)
        run.model.save_pretrained(partial)
        record = {"key": key, "seed": seed, "settings": settings.locked(), "examples": len(examples)}
        record |= {"learned_tokens": sum(e.learned for e in examples), "epochs": run.epoch_losses, "steps": run.losses}
        write_whole(partial / RECORD, json.dumps(record, indent=1) + "\n")
        os.replace(partial, folder / "adapter")
        checkpoint.unlink()
    return Trained(folder / "adapter", tuple(run.epoch_losses))


def finished_adapter(folder: Path) -> Trained | None:
    """The adapter trained into this folder, or None."""
    path = folder / "adapter" / RECORD
    if not path.exists():
        return None
    return Trained(folder / "adapter", tuple(json.loads(path.read_text())["epochs"]))


def _check_key(stored: str, key: str, where: Path) -> None:
    if stored != key:
        raise UserError(
            "an adapter is trained once, with one set of examples, settings, seed and weights",
            f"others than those of {where}",
            "Put them back, or remove that folder to train anew",
        )


class _Training:
    """Model, optimiser and position of one training."""

    def __init__(
        self, subject: Subject, examples: Sequence[Encoded], settings: TrainingSettings, seed: int, key: str
    ) -> None:
        self._subject, self._examples, self._settings = subject, examples, settings
        self._seed, self._key = seed, key
        self._per_epoch = -(-len(examples) // settings.batch)
        self.epoch = 0
        self.losses: list[float] = []
        """Of every step."""
        self.epoch_losses: list[float] = []
        torch.manual_seed(_seed(seed, "weights"))
        self.model = _with_adapter(subject, settings)
        self._weights = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=settings.learning_rate, weight_decay=0.0)
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimizer, settings.warmup_steps, settings.epochs * self._per_epoch
        )

    def train_epoch(self, progress: Progress) -> None:
        """All examples once, in an order of the epoch's own."""
        order = generator(self._seed, "fine-tuning epoch", self.epoch).permutation(len(self._examples))
        total = learned = 0.0
        for step in range(self._per_epoch):
            chosen = [self._examples[i] for i in order[step * self._settings.batch :][: self._settings.batch]]
            torch.manual_seed(_seed(self._seed, "dropout", self.epoch, step))
            loss, tokens = self._step(chosen)
            self.losses.append(loss / tokens if tokens else 0.0)
            total, learned = total + loss, learned + tokens
            progress.advance(len(chosen), sum(len(e.ids) for e in chosen), 0)
        self.epoch += 1
        self.epoch_losses.append(total / learned)

    def _step(self, examples: list[Encoded]) -> tuple[float, int]:
        """One step of the optimiser. Returns the summed loss and the learned tokens."""
        tokens = sum(e.learned for e in examples)
        examples = sorted(examples, key=lambda e: len(e.ids))  # less padding
        summed = 0.0
        for first in range(0, len(examples), self._settings.micro_batch):
            loss = self._loss(examples[first : first + self._settings.micro_batch])
            (loss / max(1, tokens)).backward()  # type: ignore[no-untyped-call]
            summed += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._weights, MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return summed, tokens

    def _loss(self, examples: list[Encoded]) -> Tensor:
        """Cross-entropy in nats, summed over the learned tokens."""
        return summed_loss(self.model, examples, self._subject.device)

    def save(self, path: Path) -> None:
        """Write the position; a kill half-way leaves the one before."""
        from peft import get_peft_model_state_dict

        state = {
            "key": self._key,
            "epoch": self.epoch,
            "losses": self.losses,
            "epoch_losses": self.epoch_losses,
            "adapter": get_peft_model_state_dict(self.model),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Go on from a position."""
        from peft import set_peft_model_state_dict

        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self._subject.device)
        _check_key(state["key"], self._key, path.parent)
        set_peft_model_state_dict(self.model, state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.epoch, self.losses, self.epoch_losses = state["epoch"], state["losses"], state["epoch_losses"]


def summed_loss(model: Any, examples: Sequence[Encoded], device: torch.device) -> Tensor:
    """Cross-entropy in nats, summed over the learned tokens of the examples, in float32."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.long)
    labels = torch.full((len(examples), longest), IGNORED)
    attention = torch.zeros((len(examples), longest), dtype=torch.long)
    for row, example in enumerate(examples):  # padded on the right
        length = len(example.ids)
        ids[row, :length], labels[row, :length] = torch.tensor(example.ids), torch.tensor(example.labels)
        attention[row, :length] = 1
    logits = model(input_ids=ids.to(device), attention_mask=attention.to(device), use_cache=False).logits[:, :-1]
    targets = labels[:, 1:].to(logits.device)
    learned = targets != IGNORED
    return cross_entropy(logits[learned].float(), targets[learned], reduction="sum")


def _with_adapter(subject: Subject, settings: TrainingSettings) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise missing_extra("adapters", "train", "peft") from None
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(subject.model, config)
    except ValueError as error:
        raise UserError("targets names modules of the model", f"{settings.targets!r} ({error})") from None
    if settings.gradient_checkpointing:
        base = subject.model  # the first name is that of transformers 5.20 and later
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def _seed(*parts: Any) -> int:
    return int(content_key("fine-tuning", *parts)[:15], 16)
