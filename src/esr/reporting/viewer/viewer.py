"""The viewer as parts of a page: its section, style and script, and the data they work on.

The index (a row of numbers per trial) comes first and is all the list, the filters and the links need. Responses come
in blocks of about 400,000 characters that the page inflates when it has time, or when one is asked for. Blocks are made
one at a time, so a page of any size is written in the memory of one block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from esr.judging.records import Attempt
from esr.reporting.viewer.blocks import Utf16, bounds, element, json_bytes, slices
from esr.reporting.viewer.readings import PackedReadings, TokenReadings

MOST = 100_000
"""Trials in a page at most. Beyond, whole cells (all conditions of a direction, prompt and seed) are left out, by the
order of their hash, and the page says how many."""
_SCRIPTS = ("dom.js", "data.js", "search.js", "state.js", "list.js", "chart.js", "episode.js", "keys.js", "main.js")
_FLAGS = ("degraded", "screened", "promoted", "improved", "multi_attempt")
_CELL = ["direction", "prompt_index", "seed"]


class Viewer:
    """``trials``: columns of ``esr.analysis.trials.COLUMNS``; where they continue a given text also ``prefix``,
    ``prefix_tokens``, ``source`` and ``judged_from``, and ``threshold`` where known. ``controls``: the condition each
    is compared with by default.

    The same trials in the same order give the same page.
    """

    def __init__(
        self,
        trials: pd.DataFrame,
        controls: Mapping[str, str | None] | None = None,
        readings: TokenReadings | None = None,
        most: int = MOST,
    ) -> None:
        self._of = len(trials)
        shown = _some_cells(trials, most).sort_values(["condition", *_CELL, "trial"], kind="stable")
        self._trials = shown
        self._controls = controls or {}
        self._texts = [given + text for given, text in zip(_given_apart(shown), shown["text"], strict=True)]
        self._starts = bounds(map(len, self._texts))
        keys = shown["trial"].tolist()
        places = {key: place for place, key in enumerate(keys)}
        self._readings = PackedReadings(readings, places, self._texts) if readings is not None else None

    @property
    def html(self) -> Markup:
        """The section, without data."""
        return Markup(_file("viewer.html"))

    @property
    def style(self) -> str:
        """Its style sheet."""
        return _file("viewer.css")

    @property
    def script(self) -> str:
        """Its script: the files of ``js/`` in one scope."""
        return '"use strict";\n{\n' + "\n".join(_file(f"js/{name}") for name in _SCRIPTS) + "}\n"

    def index(self) -> Iterator[str]:
        """The element that must stand before the script."""
        yield element("esr-index", json_bytes(self._index()))

    def blocks(self) -> Iterator[str]:
        """The elements that may stand behind the script, one at a time."""
        for number, part in enumerate(slices(self._starts, len(self._texts))):
            yield element(f"esr-texts-{number}", json_bytes(list(self._records(part))))
        for number, values in enumerate(self._readings.blocks() if self._readings else ()):
            yield element(f"esr-readings-{number}", values)

    def _index(self) -> dict[str, Any]:
        trials = self._trials
        conditions, condition = _places(trials["condition"])
        directions, direction = _places(trials["direction"])
        prompts, prompt = _places(list(zip(trials["prompt_index"], trials["prompt"], strict=True)))
        unscored = trials["state"].ne("scored")
        reasons, reason = _places([r if is_so else None for r, is_so in zip(trials["reason"], unscored, strict=True)])
        finishes, finish = _places(trials["finish"])
        label = dict(zip(trials["direction"], trials["label"], strict=True))
        threshold = dict(zip(trials["direction"], _optional(trials, "threshold"), strict=True))
        _, cell = _places(list(zip(*(trials[name] for name in _CELL), strict=True)))
        flags = sum(trials[name].astype(bool).to_numpy(dtype=np.int64) << bit for bit, name in enumerate(_FLAGS))
        place = {name: i for i, name in enumerate(conditions)}
        return {
            "of": self._of,
            "conditions": conditions,
            "controls": [place.get(self._controls.get(name) or "", -1) for name in conditions],
            "directions": [[str(d), str(label[d]), threshold[d]] for d in directions],
            "prompts": [[int(number), str(text)] for number, text in prompts],
            "reasons": reasons,
            "finishes": finishes,
            "flags": _FLAGS,
            "trials": {
                "key": trials["trial"].tolist(),
                "condition": condition,
                "direction": direction,
                "prompt": prompt,
                "cell": cell,
                "seed": [str(seed) for seed in trials["seed"]],
                "boost": _numbers(trials["boost"], 6),
                "tokens": trials["n_tokens"].tolist(),
                "attempts": _numbers(trials["n_attempts"], 0),
                "restarts": _numbers(trials["explicit_restarts"], 0),
                "first": _numbers(trials["first_score"], 2),
                "last": _numbers(trials["last_score"], 2),
                "change": _numbers(trials["improvement"], 2),
                "weight": _numbers(trials["weight"], 4),
                "reason": reason,
                "finish": finish,
                "flags": np.asarray(flags).tolist(),
            },
            "starts": self._starts,
            "readings": self._readings.index() if self._readings else None,
        }

    def _records(self, part: slice) -> Iterator[list[Any]]:
        """For each trial: the whole response; how much of it was given; where the judge began to read; the source of
        what was given; the scores of its thirds; and its attempts: start, end, score, kind, quote (as its length where
        the attempt's words begin with it). Offsets in units of UTF-16."""
        rows = self._trials.iloc[part]
        columns = (
            self._texts[part], rows["attempts"], rows["segments"], _optional(rows, "prefix"),
            _optional(rows, "source"), _optional(rows, "judged_from"),
        )  # fmt: skip
        for text, attempts, thirds, prefix, source, judged_from in zip(*columns, strict=True):
            utf16, shift = Utf16(text), int(judged_from or 0)
            yield [
                text,
                utf16(len(prefix or "")),
                utf16(shift),
                source or "",
                [round(float(score), 2) for score in thirds],
                [_attempt(text, attempt, shift, utf16) for attempt in attempts],
            ]


def _attempt(text: str, attempt: Attempt, shift: int, utf16: Utf16) -> list[Any]:
    start, end = attempt.start + shift, attempt.end + shift
    first = start + len(text[start:end]) - len(text[start:end].lstrip())
    quote: str | int = attempt.quote
    if attempt.quote and text.startswith(attempt.quote, first):
        quote = utf16(first + len(attempt.quote)) - utf16(start)
    return [utf16(start), utf16(end), round(float(attempt.score), 2), attempt.kind, quote]


def _given_apart(trials: pd.DataFrame) -> list[str]:
    """What the judge did not see of each response, so that ``text`` goes on from it."""
    if "judged_from" not in trials.columns:
        return [""] * len(trials)
    return [prefix[:start] for prefix, start in zip(trials["prefix"], trials["judged_from"], strict=True)]


def _some_cells(trials: pd.DataFrame, most: int) -> pd.DataFrame:
    """All trials, or those of as many cells as fit."""
    if len(trials) <= most:
        return trials
    cells = list(zip(*(trials[name] for name in _CELL), strict=True))
    order = sorted(set(cells), key=lambda cell: hashlib.sha256(repr(cell).encode("ascii", "backslashreplace")).digest())
    rank = {cell: i for i, cell in enumerate(order)}
    ranks = np.array([rank[cell] for cell in cells])
    kept = np.cumsum(np.bincount(ranks)) <= most
    chosen: pd.DataFrame = trials.loc[kept[ranks]]
    return chosen


def _places(values: Sequence[Any] | pd.Series[Any]) -> tuple[list[Any], list[int]]:
    """The different values in the order they first occur, and for each value its place there; None is -1."""
    found: dict[Any, int] = {}
    places = [-1 if value is None else found.setdefault(value, len(found)) for value in values]
    return list(found), places


def _numbers(values: pd.Series[Any], digits: int) -> list[float | None]:
    """Rounded; None for NaN."""
    return [None if value != value else round(float(value), digits) for value in values]


def _optional(trials: pd.DataFrame, name: str) -> list[Any]:
    """A column that a frame may lack, NaN as None."""
    if name not in trials.columns:
        return [None] * len(trials)
    return [None if value != value else value for value in trials[name]]


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
