"""One trial on the terminal: its facts, its attempts apart and coloured, and the activations of latents on its tokens.

Every text of it is untrusted: rich reads no markup in a ``Text``, and ``printable`` has taken its control characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from esr.judging.records import Attempt
from esr.reporting.episodes import segments
from esr.reporting.untrusted import printable

MOST = 20_000
"""Characters of a response shown; how many are left out is said."""
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue")
_SHADES = (None, "#4a3b00", "#7a5c00", "#a87e00", "#d9a300")
"""Backgrounds for activations of no more than 5, 25, 50, 75 and 100 per cent of the highest shown."""
_STEPS = (0.05, 0.25, 0.5, 0.75)
_TOP = 5
_CONTEXT = 24
"""Characters before the end of a token that say which one it is."""


@dataclass(frozen=True, eq=False)
class TokenValues:
    """What one latent, or a group of them, does on the tokens of a response."""

    name: str
    """For people: ``latent 12: label``, untrusted."""
    values: NDArray[np.float32]
    """[tokens]."""
    ends: Sequence[int]
    """The character of the response at which each token ends."""


def trial_block(row: Any, readings: Sequence[TokenValues] = ()) -> RenderableType:
    """``row``: a row of ``Study.trials``, as ``frame.loc[...]`` or ``itertuples`` give it."""
    whole = _whole(row)
    parts: list[RenderableType] = [facts(row), Text()]
    if row.state != "scored":
        parts += [
            Rule(Text(f"unscored: {printable(row.reason, 200)}"), align="left", style="red"),
            Text(printable(row.text, MOST, lines=True)),
        ]
    else:
        parts += _attempts(row)
    for reading in readings:
        parts += [Text(), *_shaded(reading, whole)]
    return Group(*parts)


def side_by_side(left: Any, right: Any) -> Table:
    """The same cell of the grid under two conditions."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(trial_block(left), trial_block(right))
    return table


def facts(row: Any) -> Table:
    """What was asked, how it was steered, and what the judge found."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    scores = "unscored" if row.state != "scored" else f"{row.first_score:.3g}"
    if row.state == "scored" and row.n_attempts > 1:
        scores += f" first, {row.last_score:.3g} last of {row.n_attempts:.0f} attempts;"
        scores += f" {row.explicit_restarts:.0f} began explicitly"
    marks = [name for name, holds in (
        ("multi-attempt", row.multi_attempt), ("improved", row.improved), ("degraded", row.degraded),
        ("a restart phrase by the screen", row.screened), ("direction promotes restart words", row.promoted),
    ) if holds]  # fmt: skip
    ended = _END.get(str(row.finish), printable(row.finish, 20))
    label = f" {printable(row.label, 200)}" if row.label else ""
    for name, value in (
        ("trial", row.trial),
        ("condition", printable(row.condition, 200)),
        ("direction", f"{printable(row.direction, 200)}{label}"),
        ("prompt", f"{row.prompt_index}: {printable(row.prompt, 2000, lines=True)}"),
        ("steered", _boost(row)),
        ("response", f"{row.n_tokens} tokens, seed {row.seed}, ended by {ended}"),
        ("score", scores),
        ("marks", ", ".join(marks) or "none"),
    ):  # fmt: skip
        table.add_row(name, Text(str(value)))
    if row.weight != 1:
        table.add_row("weight", Text(f"stands for {row.weight:g} responses"))
    if len(row.segments):
        table.add_row("thirds", Text(", ".join(f"{score:g}" for score in row.segments)))
    return table


def trial_json(row: Any, readings: Sequence[TokenValues] = ()) -> dict[str, Any]:
    """A trial as plain data; text as it is."""
    data = {name: _plain(value) for name, value in row._asdict().items() if name != "Index"}
    data["attempts"] = [asdict(attempt) for attempt in row.attempts]
    if readings:
        data["activations"] = [
            {"name": r.name, "values": [round(float(v), 5) for v in r.values], "ends": list(r.ends)} for r in readings
        ]
    return data


_END = {"stop": "the model", "length": "the limit of tokens"}


def _boost(row: Any) -> str:
    if row.boost == 0:
        return "not at all"
    threshold = "" if math.isnan(row.threshold) else f"; the direction's threshold is {row.threshold:.4g}"
    return f"boost {row.boost:.4g}{threshold}"


def _whole(row: Any) -> str:
    """The response with what it was made to begin with, whether the judge saw that or not."""
    prefix = str(getattr(row, "prefix", "") or "")
    return prefix[: getattr(row, "judged_from", 0)] + str(row.text)


def _ends(row: Any) -> list[float]:
    """The score of the only attempt, or those of the first and the last."""
    return [row.first_score, row.last_score] if row.n_attempts > 1 else [row.first_score]


def _attempts(row: Any) -> list[RenderableType]:
    """Each attempt under a rule that bounds it, in a colour of its own, its quote underlined."""
    parts: list[RenderableType] = []
    text, prefix = str(row.text), str(getattr(row, "prefix", "") or "")
    given = 0 if getattr(row, "judged_from", 0) else len(prefix)  # of the text that the judge saw
    if prefix and not given:
        parts += [Rule(Text("given to continue; the judge did not see it"), align="left", style="dim"),
                  Text(printable(prefix, MOST, lines=True), style="dim")]  # fmt: skip
    for part in segments(text, row.attempts):
        if part.attempt is None:
            if part.text.strip():
                parts += [
                    Rule(Text("no attempt"), align="left", style="dim"),
                    Text(printable(part.text, MOST, lines=True), style="dim"),
                ]
            continue
        colour = _COLOURS[(part.number - 1) % len(_COLOURS)]
        kind = "" if part.attempt.kind is None else f", {part.attempt.kind}"
        title = f"attempt {part.number}{kind}, score {part.attempt.score:.3g}"
        parts.append(Rule(Text(title, style=f"bold {colour}"), align="left", style=colour))
        body = Text()
        cut = max(0, min(given - part.attempt.start, len(part.text)))
        if cut:
            body.append(printable(part.text[:cut], MOST, lines=True), style="dim")
        opening = part.opening[cut:]
        body.append(printable(opening, MOST, lines=True), style=f"{colour} underline")
        body.append(printable(part.text[cut + len(opening) :], MOST, lines=True), style=colour)
        parts.append(body)
        if part.attempt.quote and not part.opening:
            parts.append(Text(f"quoted by the judge: {printable(part.attempt.quote, 200)}", style="dim"))
    if given:
        parts.append(Text(f"Dim: the first {given} characters were given to continue.", style="dim"))
    return parts


def _shaded(reading: TokenValues, whole: str) -> list[RenderableType]:
    """The response with the background by activation, and the tokens where it is highest."""
    highest = float(reading.values.max(initial=0.0))
    title = f"{printable(reading.name, 200)}: highest {highest:.3g}"
    body, begin, tops = Text(), 0, []
    for value, end in zip(reading.values, reading.ends, strict=False):
        token = whole[begin:end]
        if begin < MOST:
            step = sum(value > share * highest for share in _STEPS) if highest else 0
            shade = _SHADES[step]
            body.append(printable(token, lines=True), style=f"on {shade}" if shade else "")
        tops.append((float(value), whole[max(0, end - _CONTEXT) : end]))
        begin = end
    best = sorted(((v, t) for v, t in tops if v > 0), key=lambda pair: -pair[0])[:_TOP]
    said = ", ".join(f"…{printable(words.strip())} ({value:.3g})" for value, words in best) or "active on no token"
    return [Rule(Text(title), align="left", style="dim"), body, Text(f"Highest on: {said}", style="dim")]


def trial_rows(trials: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    """Short rows for a list of trials."""
    return [
        {
            "trial": str(row.trial)[:12],
            "condition": _short(row.condition),
            "direction": _short(f"{row.direction} {row.label}"),
            "prompt": row.prompt_index,
            "attempts": f"{row.n_attempts:.0f}" if row.state == "scored" else "unscored",
            "scores": " to ".join(f"{score:.3g}" for score in _ends(row)) if row.state == "scored" else "",
            "": " ".join(w for w, holds in (("improved", row.improved), ("degraded", row.degraded)) if holds),
        }
        for row in trials.head(most).itertuples()
    ]


def _short(text: object, most: int = 32) -> str:
    shown = printable(text, most)
    return shown if len(str(text)) <= most else f"{shown[: most - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, Attempt):
        return asdict(value)
    return value.item() if isinstance(value, np.generic) else value
