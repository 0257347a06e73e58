"""Relevance: a direction must have nothing to do with the questions, or steering with it is no distraction.

Two published rules (arXiv 2602.06941: the text and the released code differ).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def paper_rule(maxima: NDArray[np.float32], drop: int = 100) -> NDArray[np.bool_]:
    """Keep all but the ``drop`` latents most active on any unsteered response.

    maxima: [responses, latents], each latent's maximal activation over the response's tokens. Latents are ranked by
    their maximum over responses; ties go to the lower index. Returns the mask of kept latents. A latent that was
    never active is never dropped.
    """
    peak = maxima.max(axis=0)
    order = np.argsort(-peak, kind="stable")[:drop]
    keep = np.ones(peak.shape, dtype=bool)
    keep[order] = False
    keep[peak <= 0] = True
    return keep


def released_rule(maxima: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Keep the latents that are zero on every token of every prompt.

    maxima: [prompts, latents], each latent's maximal activation over the prompt's tokens.
    """
    return np.asarray((maxima <= 0).all(axis=0))
