"""The frame of trials that every analysis reads: its columns, and the checks it must pass.

Columns of untrusted text (label, prompt, text, reason, attempts) must be of dtype object: the Arrow strings that pandas
chooses by itself cannot hold a lone surrogate, and raise.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from esr.errors import UserError

COLUMNS: dict[str, str] = {
    "trial": "key of the trial, unique in the frame (str)",
    "condition": "what was done to the subject (str)",
    "direction": "id of the direction; the cluster of every interval (str)",
    "label": "what the direction is said to mean; untrusted (str)",
    "prompt_index": "position of the prompt in the study's prompt set, from 0 (int)",
    "prompt": "the question as asked, without chat template (str)",
    "seed": "the trial's own seed (int)",
    "boost": "scalar in front of the direction, in latent units for SAE rows (float)",
    "text": "the response; untrusted (str)",
    "n_tokens": "tokens of the response (int)",
    "finish": "'stop': the model ended its answer; 'length': the token limit did",
    "state": "'scored' or 'unscored'",
    "reason": "why the response is unscored; empty when scored (str)",
    "n_attempts": "attempts the judge found, announced or not; NaN when unscored",
    "explicit_restarts": "attempts that began with explicit restart language; NaN or 0 when unscored",
    "first_score": "score of the first attempt, 0-100; NaN when unscored",
    "last_score": "score of the last attempt, 0-100; NaN when unscored",
    "improvement": "last_score - first_score; NaN when not multi-attempt",
    "multi_attempt": "at least one explicit restart (bool); False when unscored",
    "improved": "multi-attempt and last_score > first_score (bool): the episode of ESR",
    "degraded": "the response collapsed into repetition (bool)",
    "screened": "the phrase screen finds a restart (bool): a cheap second opinion beside the judge's",
    "promoted": "the direction itself promotes restart words: a confound (bool)",
    "weight": "how many responses of the study the row stands for; 1 unless only a sample was judged (float)",
    "segments": "scores 0-100 of the thirds of the response, where the judge was asked for them; else empty (list)",
    "attempts": "list of esr.judging.records.Attempt; empty when unscored",
}

_KEY = ["condition", "direction", "prompt_index", "seed"]


def checked(trials: pd.DataFrame, needed: Iterable[str]) -> pd.DataFrame:
    """The trials in their canonical order (condition, direction, prompt, seed, key), so that no result
    depends on the order in which they finished.

    Raises UserError for an empty frame, missing columns, keys that UTF-8 cannot encode, a trial key that occurs twice,
    states other than scored and unscored, missing scores of scored trials, or flags that contradict them.
    """
    needed = {*_KEY, "trial", "state", "multi_attempt", "improved", "first_score", "improvement", *needed}
    missing = sorted(needed - set(trials.columns))
    if missing:
        raise UserError("a frame of trials has the documented columns", f"no {', '.join(missing)}")
    if trials.empty:
        raise UserError("an analysis needs at least one trial", "an empty frame", "Run the study first")
    for column in ("trial", "condition", "direction"):
        bad = [key for key in trials[column].unique() if not _encodable(key)]
        if bad:
            raise UserError(f"the column {column} holds text that UTF-8 can encode", ascii(bad[0]))
    if trials["trial"].duplicated().any():
        twice = trials.loc[trials["trial"].duplicated(), "trial"].iloc[0]
        raise UserError("a trial occurs once", f"{twice!r} more than once")
    trials = trials.sort_values([*_KEY, "trial"], kind="stable", ignore_index=True)
    scored = trials["state"].eq("scored")
    other = trials.loc[~scored & trials["state"].ne("unscored"), "state"]
    if not other.empty:
        raise UserError("a trial is scored or unscored", repr(other.iloc[0]))
    multi, improved = trials["multi_attempt"].astype(bool), trials["improved"].astype(bool)
    contradictions = {
        "a scored trial has a first score from 0 to 100": scored & ~trials["first_score"].between(0, 100),
        "an unscored trial is neither multi-attempt nor improved": ~scored & (multi | improved),
        "an improved trial is multi-attempt": improved & ~multi,
        "a multi-attempt trial has an improvement from -100 to 100": multi & ~trials["improvement"].between(-100, 100),
        "a trial improved exactly when its improvement is positive": multi & (improved != trials["improvement"].gt(0)),
    }
    for rule, broken in contradictions.items():
        if broken.any():
            raise UserError(rule, f"{int(broken.sum())} that break it, first {trials.loc[broken, 'trial'].iloc[0]!r}")
    return trials


def _encodable(key: object) -> bool:
    try:
        str(key).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
