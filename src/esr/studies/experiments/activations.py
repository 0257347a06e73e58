"""When do the detectors fire? Every self-correcting response is read again under its own steering, token by token, with
two controls: a steered response that never restarts (others found detectors as high in those, so this is not optional),
and the unsteered response to the same prompt. ``esr.analysis.activations`` has what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab
    from esr.studies.measure import Measured


TOKEN_ENDS = "token ends"
"""The kind of record with the characters at which the tokens of a response end, by trial: ``Lab.token_ends``."""


class ActivationsSettings(Settings):
    """``[experiment] activations``."""

    detectors: int = Field(26, ge=0)
    """So many of the best off-topic detectors."""
    backtracking: int = Field(26, ge=0)
    """So many latents whose label speaks of self-correction, most common first in the dictionary's order."""


def work(lab: Lab, settings: ActivationsSettings) -> dict[str, Any]:
    """Read and store. ``latents``: the columns of every reading, ``labels`` what they are said to be (empty: not
    known); ``groups``: which of them are what; ``readings``: one
    entry per episode and control, with the regions' boundaries in tokens; ``kind``: under which the study keeps them;
    ``partners``: episodes with a steered response that went as far off topic and never restarted, and how far apart
    their first scores are on average."""
    from esr.directions.backtracking import backtracking_latents
    from esr.studies.episodes import episodes, partners, without_restart
    from esr.studies.grid import content_key

    groups = {
        "detectors": lab.result("otd-discovery")["detectors"][: settings.detectors],
        "backtracking": sorted(backtracking_latents(lab.subject.labels))[: settings.backtracking],
        "matched random": sorted({i for one in lab.result("random-ablation") for i in one["latents"]}),
    }
    groups = {name: latents for name, latents in groups.items() if latents}
    latents = sorted({latent for some in groups.values() for latent in some})
    found = episodes(lab) if latents else []
    matched = partners(lab, found, without_restart(lab), "activations")
    unsteered = dict(zip(lab.cells, lab.outcomes("no-steering"), strict=True))
    kind_of = f"activations {content_key(latents)[:12]}"
    texts: dict[str, Measured] = {}  # a partner may serve several episodes
    readings = []
    for episode in found:
        for kind, measured in {
            "episode": episode.measured,
            "no-recovery": matched[episode.key].measured if episode.key in matched else None,
            "unsteered": unsteered[episode.cell],
        }.items():
            if measured is not None and measured.response.token_ids:
                texts[measured.key] = measured
                end = len(measured.response.token_ids)
                restart, spoken = min(episode.restart, end), min(episode.spoken, end)
                readings.append(
                    {
                        "trial": measured.key, "kind": kind, "direction": episode.measured.task.direction,
                        "episode": episode.key, "restart": restart, "correction_end": spoken, "end": end,
                    }
                )  # fmt: skip
    _read(lab, texts, latents, kind_of)
    gaps = [abs(e.first_score - matched[e.key].first_score) for e in found if e.key in matched]
    gap = sum(gaps) / len(gaps) if gaps else None
    return {
        "latents": latents, "labels": [lab.subject.labels.get(latent, "") for latent in latents],
        "groups": groups, "readings": readings, "kind": kind_of,
        "partners": {"episodes": len(found), "matched": len(gaps), "score_gap": gap},
    }  # fmt: skip


def _read(lab: Lab, texts: Mapping[str, Measured], latents: list[int], kind: str) -> None:
    """Store the activations of responses, by trial, under their own interventions, and where their tokens end; those in
    the store are kept."""
    for key, measured in texts.items():
        if lab.store.record(TOKEN_ENDS, key) is None:
            lab.store.set_record(TOKEN_ENDS, key, lab.token_ends(measured.response))
    missing = [key for key in texts if not lab.store.has_reading(key, kind)]
    lab.progress.advance(len(texts) - len(missing), 0, 0)
    requests = (replace(texts[k].task.request, prefill_ids=texts[k].response.token_ids) for k in missing)
    for key, values in zip(missing, lab.engine.readings(requests, latents), strict=True):
        lab.store.add_reading(key, kind, values[len(texts[key].task.request.prompt_ids) :])
        lab.progress.advance(1, 0, 0)


EXPERIMENT = Experiment(
    "activations",
    "When do detectors fire, and are they silent in steered text that never restarts?",
    work=work,
    needs=("incidence", "no-steering", "otd-discovery", "random-ablation"),
    latents=True,
    settings=ActivationsSettings,
    figure="courses",
)
