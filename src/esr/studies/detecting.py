"""Detectors in a study: the prompts they are found on, unsteered responses, steered ones to match on, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from esr.analysis.separability import auc_interval
from esr.analysis.uncertainty import Interval
from esr.directions.detectors import separability
from esr.directions.pairs import Over, Pairs, can_be_deranged, read_pairs, together
from esr.steering.engine import Request
from esr.studies.conditions import CONTROL, Condition
from esr.studies.discovery_prompts import KEY
from esr.studies.discovery_prompts import discovery_prompts as discovery_prompts
from esr.studies.grid import Cell
from esr.studies.lab import Lab
from esr.studies.selecting import baseline_tasks

if TYPE_CHECKING:
    from esr.subjects.latents import Pool


def unsteered_requests(lab: Lab, prompts: Sequence[str], per_prompt: int) -> list[Request]:
    """Requests for ``per_prompt`` unsteered responses to each prompt, in order."""
    asker = replace(lab.asker, prompts=tuple(prompts))
    cells = [
        Cell(0, i, int(lab.random(KEY, prompt, k).integers(2**31)))
        for i, prompt in enumerate(prompts)
        for k in range(per_prompt)
    ]
    return [asker.task("detectors", Condition("unsteered"), cell, None, 0.0).request for cell in cells]


def study_texts(lab: Lab) -> tuple[list[str], list[Request]]:
    """The study's own prompts and unsteered responses, as prefill: those its directions were chosen with, less empty
    ones."""
    tasks = baseline_tasks(lab.asker)
    return _texts(lab, [task.prompt for task in tasks], [task.request for task in tasks])


def steered_texts(lab: Lab, most: int) -> list[Request]:
    """A random ``most`` of the steered responses of the grid, with their steering, in the grid's order."""
    texts = [
        replace(m.task.request, prefill_ids=m.response.token_ids) for m in lab.outcomes(CONTROL) if m.response.token_ids
    ]
    drawn = lab.random(KEY, "steered").permutation(len(texts))[:most]
    return [texts[i] for i in sorted(drawn.tolist())]


def discovery_pairs(lab: Lab, prompts: Sequence[str], per_prompt: int, pool: Pool, over: Over) -> Pairs:
    """Unsteered responses to prompts the study does not ask, deranged and read."""
    requests = unsteered_requests(lab, prompts, per_prompt)
    texts = _texts(lab, [prompt for prompt in prompts for _ in range(per_prompt)], requests)
    return read_pairs(lab.engine, *texts, lab.random(KEY, "derange"), pool, over)


def study_pairs(lab: Lab, pool: Pool, over: Over) -> Pairs | None:
    """The same of the study's own prompts; None when they are too few to pair."""
    prompts, texts = study_texts(lab)
    if not can_be_deranged(prompts):
        return None
    return read_pairs(lab.engine, prompts, texts, lab.random(KEY, "derange", "study"), pool, over)


def steered_latents(lab: Lab) -> list[int]:
    """The latents among the study's directions."""
    return [int(d.id.removeprefix("latent:")) for d in lab.directions if d.id.startswith("latent:")]


def rows(
    lab: Lab, table: pd.DataFrame, pairs: Pairs, own: Pairs | None, detectors: Sequence[int], others: Sequence[int]
) -> list[dict[str, Any]]:
    """What the report shows of these latents: their row of ``separability``'s table, the auc's interval, density and
    mean activation when active over the matched pairs, the auc on the study's own prompts (None where they are too few
    to pair), and whether it is chosen."""
    latents = [*detectors, *others]
    held_out: list[float | None] = [None] * len(latents)
    if own is not None:
        held_out = separability(own.matched[:, latents], own.mismatched[:, latents])["auc"].tolist()
    return [
        {
            **{str(name): value for name, value in table.loc[latent].items()},
            "latent": latent,
            "label": lab.subject.labels.get(latent, ""),
            "chosen": latent in detectors,
            **_bounds(auc_interval(pairs, latent, seed=_seed(lab))),
            "density": float(pairs.activity.density[latent]),
            "mean_active": float(pairs.activity.mean_active[latent]),
            "held_out_auc": auc,
        }
        for latent, auc in zip(latents, held_out, strict=True)
    ]


def held_out(lab: Lab, own: Pairs, chosen: pd.DataFrame) -> dict[str, Any]:
    """The auc, on the study's own prompts, of the chosen latents taken together: the mean of their values, each in
    units of its standard deviation where it was chosen."""
    scale = chosen["sd"].where(chosen["sd"] > 0, chosen["mean_mismatched"])
    joint = together(own, chosen["latent"].tolist(), scale.to_numpy())
    auc = float(separability(joint.matched, joint.mismatched)["auc"][0])
    return {"auc": auc, **_bounds(auc_interval(joint, 0, seed=_seed(lab)))}


def _bounds(interval: Interval) -> dict[str, Any]:
    return {"auc_low": interval.low, "auc_high": interval.high, "auc_method": interval.method}


def _seed(lab: Lab) -> int:
    return int(lab.random(KEY, "interval").integers(2**31))


def _texts(lab: Lab, prompts: Sequence[str], requests: Sequence[Request]) -> tuple[list[str], list[Request]]:
    responses = lab.generate(KEY, requests)
    kept = [
        (prompt, replace(request, prefill_ids=response.token_ids))
        for prompt, request, response in zip(prompts, requests, responses, strict=True)
        if response.token_ids
    ]
    return [prompt for prompt, _ in kept], [text for _, text in kept]
