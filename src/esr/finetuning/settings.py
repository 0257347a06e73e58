"""The settings of a fine-tuning: what it trains on, and how. In study.toml: ``fine-tuning`` in ``[experiment]``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from esr.errors import UserError
from esr.studies.config import StudyConfig
from esr.studies.experiments.registry import Settings

KEY = "fine-tuning"
"""The experiment's key."""
FOLDER = "fine-tuning"
"""Of a study's folder: where everything of its fine-tuning is."""

Source = Literal["study", "constructed", "judge"]
"""Where self-correction examples come from: episodes of the study; spliced from its responses; written by the model
that judges it."""


class TrainingSettings(BaseModel):
    """LoRA (Hu and others 2021) by peft. Defaults: as published in arXiv 2602.06941."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(32, ge=1)
    """Rank of the adapter's matrices."""
    alpha: int = Field(16, ge=1)
    """The adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of an adapter's inputs left out in each step of training."""
    targets: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter, as peft names them: by default all linear layers but the output layer."""
    learning_rate: float = Field(2e-4, gt=0)
    """At its peak, for AdamW."""
    epochs: int = Field(4, ge=1)
    """Passes over the examples."""
    batch: int = Field(8, ge=1)
    """Examples per step of the optimiser (the effective batch)."""
    warmup_steps: int = Field(10, ge=0)
    """Steps in which the rate rises linearly; after them it falls as a cosine to 0."""
    micro_batch: int = Field(2, ge=1)
    """Examples in memory at a time; gradients accumulate to ``batch``. Changes results by rounding only."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third slower."""

    def locked(self) -> dict[str, Any]:
        """The settings that determine an adapter."""
        return self.model_dump(mode="json", exclude={"micro_batch", "gradient_checkpointing"})


class FineTuneSettings(Settings):
    """Everything that may be chosen."""

    shares: tuple[int, ...] = (10, 30, 50, 70, 90)
    """Per cent of self-correction examples among the training examples, one adapter for each; the rest are ordinary
    answers. 0 trains on ordinary answers only: a control for the training itself."""
    source: Source = "constructed"
    """Self-correction examples: episodes of the ``study``; ``constructed`` from its responses; written by its
    ``judge``'s model."""
    data: str | None = None
    """A JSONL file of examples (see ``esr.finetuning.examples``) instead of ``source``, relative to the study. Ordinary
    answers in it stand in place of the study's."""
    examples: int = Field(1900, ge=2)
    """Training examples of every adapter, of both kinds together (published: 38 prompts x 50 off-topic subjects)."""
    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the study's prompts that no training example has."""
    off_topic_at_most: float = Field(30.0, ge=0, le=100)
    """``constructed``: a steered response serves as an off-topic start when its first score is no more than this."""
    ordinary_at_least: float = Field(50.0, ge=0, le=100)
    """An unsteered response serves as an ordinary answer when its first score is no less than this."""
    restarts: str | None = None
    """``constructed``: file with one restart phrase per line, relative to the study; default: the lexicon's, where the
    subject has one, else the bundled list."""
    subjects: str | None = None
    """``judge``: file with one off-topic subject per line; default: 50 bundled ones."""
    max_tokens: int = Field(2048, ge=16)
    """Longer examples are left out, and counted."""
    training: TrainingSettings = TrainingSettings()

    @field_validator("shares")
    @classmethod
    def _shares(cls, shares: tuple[int, ...]) -> tuple[int, ...]:
        if not shares or len(set(shares)) < len(shares) or not all(0 <= share <= 100 for share in shares):
            raise ValueError("shares are different whole per cents from 0 to 100, at least one")
        return tuple(sorted(shares))

    def locked(self, folder: Path) -> dict[str, Any]:
        """The settings that hold for all adapters of a study, with hashes of the files they name."""
        plain = self.model_dump(mode="json", exclude={"shares", "training"})
        return plain | {"training": self.training.locked()} | {"files": self._hashes(folder)}

    def _hashes(self, folder: Path) -> dict[str, str]:
        named = {"data": self.data, "restarts": self.restarts, "subjects": self.subjects}
        try:
            return {k: hashlib.sha256((folder / v).read_bytes()).hexdigest()[:16] for k, v in named.items() if v}
        except OSError as error:
            raise UserError("a file named in the settings can be read", f"{error.strerror}: {error.filename}") from None


def read_settings(folder: Path, config: StudyConfig, **given: Any) -> FineTuneSettings:
    """The settings of a study's fine-tuning: what is ``given`` (and not None), else ``fine-tuning`` of ``[experiment]``
    in study.toml, else what the fine-tuning was begun with, else the defaults.

    Raises UserError for a wrong setting.
    """
    held = held_settings(folder)
    held.pop("files", None)
    written = dict(config.experiment.get(KEY, {}))
    if isinstance(written.get("training"), dict):
        written["training"] = held.get("training", {}) | written["training"]
    try:
        return FineTuneSettings.model_validate(held | written | {k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise UserError("every setting of a fine-tuning is as it must be", wrong) from None


def held_settings(folder: Path) -> dict[str, Any]:
    """What ``FineTuneSettings.locked`` gave when the study's fine-tuning was begun; empty before."""
    path = folder / FOLDER / "settings.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
