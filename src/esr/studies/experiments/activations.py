"""When do the detectors fire? Every self-correcting response is read again under its own steering, token by token, with
two controls: a steered response that never restarts (others found detectors as high in those, so this is not optional),
and the unsteered response to the same prompt. ``esr.analysis.activations`` has what is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from esr.studies.experiments.registry import Experiment, Settings

if TYPE_CHECKING:
    from esr.studies.lab import Lab
    from esr.studies.measure import Measured

KIND = "activations"
"""Under which the study stores the readings, by trial: [tokens of the response, latents]."""


class ActivationsSettings(Settings):
    """``[experiment] activations``."""

    detectors: int = 26
    """So many of the best off-topic detectors."""
    backtracking: int = 26
    """So many latents whose label speaks of self-correction, most common first in the dictionary's order."""


def work(lab: Lab, settings: ActivationsSettings) -> dict[str, Any]:
    """Read and store. ``latents``: the columns of every reading; ``groups``: which of them are what; ``readings``: one
    entry per episode and control, with the regions' boundaries in tokens."""
    from esr.directions.backtracking import backtracking_latents
    from esr.studies.episodes import episodes, partners, without_restart

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
    readings = []
    lab.progress.start("activations", 3 * len(found))
    for episode in found:
        for kind, measured in {
            "episode": episode.measured,
            "no-recovery": matched[episode.key].measured if episode.key in matched else None,
            "unsteered": unsteered[episode.cell],
        }.items():
            if measured is not None and measured.response.token_ids:
                end = _read(lab, measured, latents)
                restart, spoken = min(episode.restart, end), min(episode.spoken, end)
                readings.append(
                    {
                        "trial": measured.key, "kind": kind, "direction": episode.measured.task.direction,
                        "episode": episode.key, "restart": restart, "correction_end": spoken, "end": end,
                    }
                )  # fmt: skip
            lab.progress.advance(1, 0, 0)
    return {"latents": latents, "groups": groups, "readings": readings}


def _read(lab: Lab, measured: Measured, latents: list[int]) -> int:
    """Store a response's activations under its own interventions; returns its number of tokens."""
    request, ids = measured.task.request, measured.response.token_ids
    if not lab.store.has_reading(measured.key, KIND):
        text = request.prompt_ids + ids
        values = lab.engine.read(text, latents, request.interventions, prompt_length=len(request.prompt_ids))
        lab.store.add_reading(measured.key, KIND, values[len(request.prompt_ids) :])
    return len(ids)


EXPERIMENT = Experiment(
    "activations",
    "When do detectors fire, and are they silent in steered text that never restarts?",
    work=work,
    needs=("incidence", "no-steering", "otd-discovery", "random-ablation"),
    latents=True,
    settings=ActivationsSettings,
    figure="courses",
)
