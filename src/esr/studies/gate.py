"""How many candidates the efficacy gate may try, as far as that is known before the subject is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from esr.directions.concreteness import RuleGrader
from esr.errors import UserError
from esr.studies.config import DirectionSettings, StudyConfig
from esr.subjects.spec import SubjectSpec

AT_LEAST = 8
"""Candidates tried at a time, at least."""


def next_batch(settings: DirectionSettings, passed: int) -> int:
    """How many candidates are tried next when so many have passed."""
    return max(AT_LEAST, round(1.5 * (settings.count - passed)))


def most_candidates(folder: Path, config: StudyConfig) -> tuple[int | None, str]:
    """At most so many candidates can reach the gate, and what that rests on. None when only the SAE, which is still to
    be downloaded, tells how many latents it has. No weights are read. Raises UserError for a file that cannot be read.
    """
    settings, spec = config.directions, config.subject
    if settings.vectors is not None:
        from esr.subjects.vectors import read_vectors

        names = list(read_vectors(folder / settings.vectors))
        return _concrete(settings, names, f"the {len(names)} vectors of {settings.vectors}")
    if settings.latents is not None:
        latents, basis = sorted(set(settings.latents)), f"the {len(set(settings.latents))} latents named"
    elif (d_sae := _d_sae(spec)) is not None:
        latents, basis = list(range(d_sae)), f"the {d_sae} latents of the SAE"
    else:
        return None, "how many latents the SAE has is known once it is downloaded"
    if settings.concreteness != "released" or (path := spec.labels_path()) is None:
        return len(latents), basis
    from esr.subjects.labels import read_labels

    labels = read_labels(path)
    return _concrete(settings, [labels.get(latent, "") for latent in latents], basis)


def _concrete(settings: DirectionSettings, labels: list[str], basis: str) -> tuple[int, str]:
    """Those whose labels the released rule keeps; other rules depend on what is left by then, and take nothing off."""
    if settings.concreteness != "released":
        return len(labels), basis
    kept = sum(grade >= settings.concreteness_minimum for grade in RuleGrader().grade(labels))
    return kept, f"{kept} of {basis}, those whose label is concrete enough"


def _d_sae(spec: SubjectSpec) -> int | None:
    """Latents of the subject's SAE, by its folder's ``cfg.json`` or the published subjects."""
    if spec.sae is None:
        return None
    if spec.sae.path is None:
        from esr.subjects.published import published_subjects

        named = (spec.sae.release, spec.sae.id)
        known = published_subjects().values()
        return next((p.d_sae for p in known if p.spec.sae and (p.spec.sae.release, p.spec.sae.id) == named), None)
    path = spec.resolve(spec.sae.path) / "cfg.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["d_sae"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("an SAE's folder has a cfg.json that says d_sae", f"{path} ({type(error).__name__})") from None
