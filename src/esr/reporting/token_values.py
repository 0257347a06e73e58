"""What the latents a study has read do on the tokens of one response."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from esr.errors import UserError
from esr.reporting.one_trial import TokenValues
from esr.studies.experiments.activations import TOKEN_ENDS
from esr.studies.mistakes import meant
from esr.studies.store import Store
from esr.studies.study import Study


def token_values(study: Study, row: Any, names: Iterable[str]) -> list[TokenValues]:
    """``row``: of ``Study.trials``. ``names``: numbers of latents, or groups the experiment ``activations`` read, which
    stand for the mean over their latents.

    Raises UserError when the trial was not read, or the latent was not.
    """
    found = study.result("activations")
    latents, groups = found["latents"], found["groups"]
    kept = {r["trial"] for r in found["readings"]}
    if row.trial not in kept:
        raise UserError(
            "a trial whose activations are shown was read", f"{row.trial} was not",
            "activations reads every episode, and its matched controls",
        )  # fmt: skip
    with Store.reading(study.folder) as store:
        values = store.readings(found["kind"])[row.trial]
        response = store.responses([row.response])[row.response]
        ends = store.record(TOKEN_ENDS, row.trial)
    if ends is None:  # a study of before they were noted
        ends = token_ends(_tokenizer(study), response.token_ids)
    columns = {latent: column for column, latent in enumerate(latents)}
    labels = _labels(study)
    shown = []
    for name in names:
        if name in groups:
            some = [columns[latent] for latent in groups[name]]
            shown.append(TokenValues(f"{name}, mean of {len(some)} latents", values[:, some].mean(axis=1), ends))
        elif name.isdecimal() and int(name) in columns:
            label = labels.get(int(name), "")
            title = f"latent {int(name)}" + (f": {label}" if label else "")
            shown.append(TokenValues(title, values[:, columns[int(name)]], ends))
        else:
            raise UserError("a latent that is shown was read", name, meant(name, [*groups, *map(str, latents)]))
    return shown


def token_ends(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """For each token the character at which it ends in the text of them all."""
    return [
        len(tokenizer.decode(list(ids[: i + 1]), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for i in range(len(ids))
    ]


def _tokenizer(study: Study) -> Any:
    from esr.subjects.loading import load_tokenizer

    return load_tokenizer(study.config.subject)


def _labels(study: Study) -> dict[int, str]:
    from esr.subjects.labels import read_labels

    path = study.config.subject.labels_path()
    return {} if path is None else read_labels(path, None)
