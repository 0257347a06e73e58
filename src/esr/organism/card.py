"""The model card that ships with each folder: what was planted, what was not, what it is no evidence for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from esr.organism.dictionary import HOOK_NAME, Fidelity
from esr.organism.language import vocabulary
from esr.organism.schedule import NAIVE, ORGANISM, STEERED_TOPICS, UNTRAINED_RECOVERY, Phase
from esr.organism.topics import topics

ROLES: Final = {
    NAIVE: "The negative control: it answers on topic and was never taught a restart. Start here to fine-tune.",
    UNTRAINED_RECOVERY: "It was taught to notice drift in text and to restart. It was never steered towards a topic "
    "while training, so recovery under steering is not trained.",
    ORGANISM: "It was also steered in training and taught to be on topic after a restart with the push still on.",
}

_TEMPLATE: Final = """\
# {name}

{role}

A Llama with {parameters} parameters over a vocabulary of {words} words, made to test the instruments of this package.
**It is no evidence about large language models**: its self-correction was put there by training on synthetic text.

## Data
Generated text: {topics} topics with about 24 words each that belong to one topic only, 14 sentence templates,
7 question templates, self-monitor and neutral suffixes, 6 restart phrases. In distracted examples the answer drifts
to another topic; its off-topic words are not training targets, except in the phase that steers.
No text comes from an outside source.

## Training
Seed {seed}. AdamW, batches of 32 sequences, one chain of phases; this model is kept after `{last}`.

| phase | steps | peak lr | distracted | hazard plain/monitored | noise | steering |
|---|---|---|---|---|---|---|
{phases}

Hazard: probability of a restart after a wholly off-topic sentence, without and with a self-monitor suffix.
Noise and steering: greatest norm of a random vector, or of a topic's direction, added to the residual stream at every
position in training, as a share of the mean residual norm. Topics steered in training: {steered}.
Never steered in training: {held_out}.

## What is planted, and what is not
{planted}
Not planted in any model: which latents detect drift, that SAE decoder rows steer, what happens for the topics never
steered in training, and whether ablating detectors lowers the rate more than ablating others.

## The SAE in `sae/`
TopK, trained with SAELens on `{hook}` (the output of the second decoder layer) without the first position. On text it
was not trained on: fraction of variance unexplained {fvu:.4f}, {l0:.1f} latents per token, {alive} of {latents:,}
alive. Mean residual norm there: {norm:.2f}. Decoder rows have norm 1, so a boost is in units of the residual stream.
Weights are stored as fp16; load the model with `dtype=torch.float32`. SAELens casts the SAE itself.

`labels.json`: a label per latent, made from the words it fires on. `latents.json`: topic, purity, density and largest
activation. `lexicon.json`: topic words and restart phrases for a judge by rules. `suffixes.json`: self-monitor
and neutral suffixes for a prompt. `prompts.txt`: questions without one.
"""

_PLANTED: Final = {
    NAIVE: "Planted: staying on the topic asked, and correct grammar under a constant random push. Restart words were "
    "never a target, nor read.",
    UNTRAINED_RECOVERY: "Planted: restarting after off-topic text at the hazard above, more often with a self-monitor "
    "suffix; on-topic text after a restart, unsteered. Recovery under steering is not planted.",
    ORGANISM: "Planted: restarting after off-topic text at the hazard above, more often with a self-monitor suffix, "
    "and on-topic text after a restart while steered.",
}


@dataclass(frozen=True)
class Facts:
    """What the card reports of one model, measured when its folder was made."""

    parameters: int
    latents: int
    fidelity: Fidelity
    mean_norm: float
    """Mean norm of the residual stream at the SAE's layer, first position left out."""


def write_card(path: Path, name: str, seed: int, schedule: Sequence[Phase], facts: Facts) -> None:
    """Write the card of model `name`, kept after the phase that leaves it."""
    last = next(index for index, phase in enumerate(schedule) if phase.leaves == name)
    names = [topic.name for topic in topics()]
    steers = any(phase.steering for phase in schedule[: last + 1])
    text = _TEMPLATE.format(
        name=name,
        role=ROLES.get(name, "A model of a schedule other than the default one."),
        parameters=f"{facts.parameters:,}",
        words=f"{len(vocabulary().words):,}",
        topics=len(names),
        seed=seed,
        last=schedule[last].name,
        phases="\n".join(_row(phase) for phase in schedule[: last + 1]),
        steered=f"the first {STEERED_TOPICS} of `lexicon.json`" if steers else "none",
        held_out=", ".join(names[STEERED_TOPICS:]) if steers else "all",
        planted=_PLANTED.get(name, ""),
        hook=HOOK_NAME,
        fvu=facts.fidelity.fvu,
        l0=facts.fidelity.l0,
        alive=facts.fidelity.alive,
        latents=facts.latents,
        norm=facts.mean_norm,
    )
    path.write_text(text)


def _row(phase: Phase) -> str:
    end = phase.final_hazard
    hazard = f"{phase.hazard.plain:g}/{phase.hazard.monitored:g}"
    if end is not None:
        hazard += f" to {end.plain:g}/{end.monitored:g}"
    return (
        f"| {phase.name} | {phase.steps} | {phase.peak_lr:g} | {phase.distracted:.0%} | "
        f"{hazard if phase.distracted else '-'} | {phase.noise:g} | {phase.steering:g} |"
    )
