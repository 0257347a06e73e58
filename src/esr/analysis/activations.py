"""When SAE latents are active around a restart: what was read (METHOD section 5, "activations").

A response with a restart (an *episode*) has three regions, from the judge's boundaries: **off-topic**, the tokens
before the restart; **correction**, the restart phrase; **on-topic**, what follows it. Its controls, steered text that
never restarts and unsteered text, are cut at the same token positions, clipped to their length: there the names say
where the tokens stand, not what they are about.

``activation_regions`` has the means of the regions, ``activation_comparisons`` what differs between them, and
``activation_courses`` the courses in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from esr.analysis.uncertainty import Floats
from esr.errors import UserError

Kind = Literal["episode", "no-recovery", "unsteered"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REGIONS = ("off-topic", "correction", "on-topic")
WHOLE = "response"
"""All tokens of a response, [0, end). The baseline is the mean of it over the unsteered responses."""
SPANS = (*REGIONS, WHOLE)


@dataclass(frozen=True, eq=False)
class Reading:
    """The activations of the latents on one response, read while the response was teacher-forced."""

    trial: str
    """Key of the trial whose response was read."""
    kind: Kind
    """"episode", "no-recovery" (steered, without a restart) or "unsteered"."""
    direction: str
    """Id of the trial's direction: the cluster of every interval."""
    episode: str
    """Trial key of the episode this reading is matched to; its own key for an episode."""
    values: NDArray[np.float32]
    """[response tokens, latents], SAE activations, at least 0."""
    restart: int
    """Token index of the restart; for a control that of its episode, clipped to the control's length."""
    correction_end: int
    """Token index where the restart phrase ends (exclusive); clipped likewise."""
    end: int
    """Token index where the response's text ends (exclusive)."""

    def __post_init__(self) -> None:
        name = f"{self.trial!a} of episode {self.episode!a}"
        if self.kind not in KINDS:
            raise UserError(f"a reading is one of {', '.join(KINDS)}", f"{self.kind!a} for {name}")
        if (self.kind == "episode") != (self.trial == self.episode):
            raise UserError("an episode, and only an episode, is matched to itself", f"{self.kind}: {name}")
        if self.values.ndim != 2:
            raise UserError("activations have the shape [tokens, latents]", f"{self.values.shape} for {name}")
        if not 0 <= self.restart <= self.correction_end <= self.end <= len(self.values):
            bounds = f"{self.restart}, {self.correction_end}, {self.end}, {len(self.values)} for {name}"
            raise UserError("0 <= restart <= correction_end <= end <= tokens of the response", bounds)
        if not (np.isfinite(self.values).all() and (self.values >= 0).all()):
            raise UserError("activations are finite and at least 0", f"others for {name}")

    def spans(self) -> dict[str, slice]:
        """The tokens of each of ``SPANS``; a span may be empty."""
        cuts = (0, self.restart, self.correction_end, self.end)
        regions = {name: slice(*cuts[i : i + 2]) for i, name in enumerate(REGIONS)}
        return {**regions, WHOLE: slice(0, self.end)}


@dataclass(frozen=True, eq=False)
class Activations:
    """The readings of one study, in an order of their own: no result depends on the order they were given in.

    Raises UserError when there is none, one occurs twice, a control's episode is missing, the latents are not those of
    the arrays, or a group holds other latents or none.
    """

    readings: Sequence[Reading]
    latents: Sequence[int]
    """The latents of the columns of every ``values``."""
    groups: Mapping[str, Sequence[int]]
    """Name -> its latents, for example "detectors", "backtracking", "matched random"."""

    def __post_init__(self) -> None:
        if not self.readings:
            raise UserError("an analysis of activations needs at least one reading", 0, "Run the study first")
        ordered = sorted(self.readings, key=lambda r: (KINDS.index(r.kind), r.episode, r.trial))
        keys = [(r.episode, r.trial) for r in ordered]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError("a response is read once per episode it is matched to", f"{twice!a} more than once")
        episodes = {r.trial for r in ordered if r.kind == "episode"}
        orphans = [r for r in ordered if r.episode not in episodes]
        if orphans:
            raise UserError("a control's episode is among the readings", ascii(orphans[0].episode))
        if len(set(self.latents)) < len(self.latents) or not self.latents:
            raise UserError("the latents are some, each once", list(self.latents))
        widths = {r.values.shape[1] for r in ordered}
        if widths != {len(self.latents)}:
            raise UserError("a reading has one column per latent", f"{sorted(widths)} for {len(self.latents)} latents")
        for name, members in self.groups.items():
            if not members or not set(members) <= set(self.latents):
                raise UserError("a group holds some of the latents that were read", f"{name!a}: {list(members)}")
        object.__setattr__(self, "readings", tuple(ordered))

    @property
    def units(self) -> list[tuple[str, str]]:
        """("latent", its number) for every latent, then ("group", its name) for every group."""
        return [("latent", str(latent)) for latent in self.latents] + [("group", name) for name in self.groups]

    def group_weights(self) -> Floats:
        """[latents, groups]: activations times these are the groups' means."""
        members = [np.isin(self.latents, list(group)) for group in self.groups.values()]
        return np.array([mask / mask.sum() for mask in members]).reshape(len(self.groups), len(self.latents)).T

    def region_means(self) -> Floats:
        """[readings, spans, units]: the mean over each span's tokens; NaN where the span is empty."""
        means = np.full((len(self.readings), len(SPANS), len(self.latents)), np.nan)
        for i, reading in enumerate(self.readings):
            for j, span in enumerate(reading.spans().values()):
                if span.start < span.stop:
                    means[i, j] = reading.values[span].mean(axis=0, dtype=np.float64)
        return np.concatenate([means, means @ self.group_weights()], axis=2)
