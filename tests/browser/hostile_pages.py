"""A study whose every text tries to break the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from esr.judging.records import Attempt
from esr.reporting.view import CALIBRATION, EXCLUSIONS, STAGES, StudyView

HOSTILE = (
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)" autofocus onfocus=alert(1) x=\'',
    "</p></article></section></main><img src=x onerror=alert(1)><svg onload=alert(1)>",
    "</title></style><style>*{display:none!important}</style></textarea></noscript>",
    "<!-- <script> --!> ]]> <![CDATA[ {{ 7 * 7 }}{% raw %} ${alert(1)} javascript:alert(1)",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \r\n bell \x9b2J",
    "right\u202eto\u202cleft \u2066x\u2069 zero\u200bwidth \ufeff tag\U000e0041 עברית مرحبا",
    "lone \ud800 and \udfff surrogates 🙂",
    "nul \x00 and \x1f and \x7f and \x85 \u2028 end",
    '<iframe src="https://example.invalid/"></iframe><link rel=stylesheet href=//example.invalid/a.css>',
    "<meta http-equiv=refresh content=0><base href=//example.invalid/><form action=//example.invalid/><input name=q>",
    "&lt;b&gt; &amp;#x3c; %3Cscript%3E \\u003cscript\\u003e #trial=x&q=<b>",
    "long" * 250_000,
)
"""The last one is a line of a megabyte without a space."""


def hostile_view() -> StudyView:
    """Twelve directions, three prompts, two conditions; every text is one of ``HOSTILE``."""
    conditions = ("incidence", '"><script>alert(1)</script>\u202e&q=1#</select>')
    rows: list[dict[str, Any]] = []
    for c, condition in enumerate(conditions):
        for direction in range(12):
            for prompt in range(3):
                number = direction * 3 + prompt
                word = HOSTILE[number % len(HOSTILE)]
                first, second = f"{word} first. ", f"Wait, {word} second."
                multi, scored = number % 2 == 0, number % 7 != 3
                attempts = [Attempt(0, len(first), 20.0, first[:160])]
                if multi:
                    attempts.append(Attempt(len(first), len(first + second), 90.0, second[:160], "disowning"))
                if number % 5 == 0:
                    attempts[0] = Attempt(0, len(first), 20.0, HOSTILE[(number + 1) % 12])
                rows.append(
                    {
                        "trial": f"{c}-{number:030d}", "condition": condition, "direction": f"latent:{direction}<b>",
                        "label": HOSTILE[direction % len(HOSTILE)][:3000], "prompt_index": prompt,
                        "prompt": HOSTILE[(prompt * 5) % len(HOSTILE)], "seed": number, "boost": 3.5,
                        "text": first + (second if multi else ""), "n_tokens": 17, "finish": "stop",
                        "state": "scored" if scored else "unscored", "reason": "" if scored else word[:3000],
                        "n_attempts": len(attempts) if scored else np.nan,
                        "explicit_restarts": int(multi) if scored else np.nan,
                        "first_score": 20.0 if scored else np.nan,
                        "last_score": (90.0 if multi else 20.0) if scored else np.nan,
                        "improvement": 70.0 if multi and scored else np.nan, "multi_attempt": multi and scored,
                        "improved": multi and scored, "degraded": number % 9 == 0, "promoted": direction == 2,
                        "screened": multi, "weight": 1.0, "segments": [], "attempts": attempts if scored else [],
                        "source": word[:50], "prefix": first[:4], "prefix_tokens": 1, "judged_from": 0,
                    }
                )  # fmt: skip
    short = HOSTILE[2]
    calibration = [
        (f"latent:{d}<b>", HOSTILE[d][:3000], 2.0, 1.5, 3.0, 33.0, 20, 90, "calibrated", "", 12.5, 0.5, d == 2)
        for d in range(12)
    ]
    return StudyView(
        title=HOSTILE[0] + HOSTILE[3],
        trials=_frame(rows, list(rows[0])),
        calibration=_frame(calibration, CALIBRATION),
        exclusions=_frame([(short, short, 3, 14)], EXCLUSIONS),
        stages=_frame([(short, 12.5, 1000.0)], STAGES),
        settings={"name": short, short: [1, short]},
        provenance={"hash": short},
        is_organism=True,
    )


def _frame(rows: list[Any], columns: Any) -> pd.DataFrame:
    """Text as dtype object, as a study's frames have it."""
    values = [tuple(row.values()) if isinstance(row, dict) else row for row in rows]
    return pd.DataFrame(
        {
            name: pd.Series([value[i] for value in values], dtype=object if isinstance(values[0][i], str) else None)
            for i, name in enumerate(columns)
        }
    )
