"""Off-topic detectors: latents that are active when a response does not belong to its prompt.

Per latent, from its pooled activations on n matched and n mismatched pairs (see ``esr.directions.pairs``):

- **auc** = P(mismatched > matched) + P(equal) / 2, Mann and Whitney's U over n^2; 0.5 says nothing, 1 separates.
- **d** = (mean mismatched - mean matched) / pooled standard deviation (Cohen 1988), NaN where that is 0.
- **strict**: active on no matched pair, and on at least 80 % of the mismatched ones (arXiv 2602.06941).

"Detector" is a functional label. The best of many latents look better here than they are: say their auc on other
prompts beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from esr.directions.pairs import Values
from esr.errors import UserError

RankBy = Literal["auc", "strict", "d"]

CHUNK = 2**22
"""Most pooled activations (pairs x latents) looked at together: each temporary copy of them takes 32 MiB."""


def separability(matched: Values, mismatched: Values) -> pd.DataFrame:
    """One row per latent: ``latent``, ``auc``, ``d``, ``rate_matched`` and ``rate_mismatched`` (share of pairs with a
    value above 0), ``mean_matched`` and ``mean_mismatched`` (of the values), ``sd`` (the pooled one). A latent that is
    dead, active on no pair, has an auc of 0.5 and a d of NaN.

    Bounded memory: a chunk of latents at a time. Raises UserError for fewer than two pairs of either kind.
    """
    if matched.ndim != 2 or matched.shape[1:] != mismatched.shape[1:] or min(len(matched), len(mismatched)) < 2:
        raise UserError(
            "separability needs two matched and two mismatched pairs at least, over the same latents",
            f"shapes {matched.shape} and {mismatched.shape}",
        )
    width = max(1, CHUNK // (len(matched) + len(mismatched)))
    starts = range(0, matched.shape[1], width)
    parts = [_separability(matched[:, a : a + width], mismatched[:, a : a + width]) for a in starts]
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "latent", np.arange(len(table)))
    return table


def _separability(matched: Values, mismatched: Values) -> pd.DataFrame:
    one, two = matched.astype(np.float64), mismatched.astype(np.float64)
    alive = one.any(axis=0) | two.any(axis=0)
    auc = np.full(one.shape[1], 0.5)
    auc[alive] = placements(one[:, alive], two[:, alive]).mean(axis=0)
    squares = ((one - one.mean(axis=0)) ** 2).sum(axis=0) + ((two - two.mean(axis=0)) ** 2).sum(axis=0)
    pooled = np.sqrt(squares / (len(one) + len(two) - 2))
    difference = two.mean(axis=0) - one.mean(axis=0)
    return pd.DataFrame(
        {
            "auc": auc,
            "d": np.divide(difference, pooled, out=np.full_like(pooled, np.nan), where=pooled > 0),
            "rate_matched": (one > 0).mean(axis=0),
            "rate_mismatched": (two > 0).mean(axis=0),
            "mean_matched": one.mean(axis=0),
            "mean_mismatched": two.mean(axis=0),
            "sd": pooled,
        }
    )


def placements(matched: NDArray[np.floating], mismatched: NDArray[np.floating]) -> NDArray[np.float64]:
    """For each mismatched value, the share of matched values below it, ties counting half: [mismatched, latents], in
    [0, 1]. Their mean over pairs is the auc.

    The rank among all values is the number of values below or equal of both kinds; the rank among its own kind takes
    the own ones off.
    """
    among_all = rankdata(np.concatenate([matched, mismatched]), axis=0)[len(matched) :]
    return np.asarray((among_all - rankdata(mismatched, axis=0)) / len(matched))


def rank(
    table: pd.DataFrame,
    by: RankBy = "auc",
    top: int = 26,
    *,
    auc_minimum: float = 0.5,
    matched_share: float = 1.0,
    strict_matched: float = 0.0,
    strict_mismatched: float = 0.8,
    exclude: Iterable[int] = (),
) -> pd.DataFrame:
    """The best rows of ``separability``'s table, best first, at most ``top``; fewer when fewer qualify.

    Only latents that lean to mismatched pairs qualify (auc above 0.5 and at least ``auc_minimum``), so no dead one
    does. ``by``: ``auc``; ``d``; ``strict`` (rate on matched pairs at most ``strict_matched``, on mismatched ones at
    least ``strict_mismatched``; ordered by the latter). ``matched_share``: the mean on matched pairs is at most this
    share of the mean on mismatched ones. Latents that are always on separate a little and hurt everything when ablated:
    a low share keeps them out. ``exclude``: latents never taken. Ties are broken by auc, then d, then the lower latent.

    Raises UserError for an unknown ``by`` or limits out of range.
    """
    if by not in ("auc", "strict", "d") or top < 1:
        raise UserError("detectors are ranked by auc, strict or d, and one at least is asked for", f"{by}, top {top}")
    limits = {
        "auc_minimum": auc_minimum, "matched_share": matched_share,
        "strict_matched": strict_matched, "strict_mismatched": strict_mismatched,
    }  # fmt: skip
    for name, value in limits.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} lies in [0, 1]", value)
    kept = (table["auc"] > 0.5) & (table["auc"] >= auc_minimum)
    kept &= table["mean_matched"] <= matched_share * table["mean_mismatched"]
    kept &= ~table["latent"].isin(list(exclude))
    if by == "strict":
        kept &= (table["rate_matched"] <= strict_matched) & (table["rate_mismatched"] >= strict_mismatched)
    columns = {"auc": ["auc", "d"], "strict": ["rate_mismatched", "auc", "d"], "d": ["d", "auc"]}[by]
    ordered = table[kept].sort_values([*columns, "latent"], ascending=[False] * len(columns) + [True])
    return ordered.head(top).reset_index(drop=True)
