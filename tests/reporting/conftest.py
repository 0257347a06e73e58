"""A small study as a report sees it, tame or hostile."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_results import GROUPS, MATCHES, activation_tables, discovery, dose_frame, judges_agreement

from esr.analysis.paired import compare_pairs
from esr.judging.records import Attempt
from esr.reporting.view import CALIBRATION, EXCLUSIONS, JUDGES, STAGES, ExperimentView, StudyView

HOSTILE = (
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)" x=\'',
    "</p></article></main><img src=x onerror=alert(1)>",
    "</title></style><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}<!-- ",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \r\n bell \x9b2J",
    "right\u202eto\u202cleft \u2066x\u2069 zero\u200bwidth \ufeff tag\U000e0041",
    "lone \ud800 and \udfff surrogates",
    "nul \x00 and \x1f and \x7f and \x85 \u2028 end",
    "$\\frac{1}{$ [bold red]not markup[/] [link=http://x]x[/link] {x} %s",
    "long " * 200_000,
)


@pytest.fixture
def hostile() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def make_view() -> Callable[..., StudyView]:
    """``words`` are used for every text of the study in turn: labels, prompts, responses, reasons, names."""

    def make(words: tuple[str, ...] = ("plain words",), **fields: Any) -> StudyView:
        generator = np.random.default_rng(0)

        def word() -> str:
            return words[int(generator.integers(len(words)))]

        def short() -> str:
            return word()[:3000]

        rows: list[dict[str, Any]] = []
        for condition in ("incidence", "no-steering"):
            for direction in range(14):
                for prompt in range(3):
                    first, second = f"{word()} first. ", f"Wait, {word()} second."
                    multi = condition == "incidence" and generator.random() < 0.6
                    scored = generator.random() < 0.9
                    scores = [float(generator.integers(0, 60)), float(generator.integers(0, 101))][: 1 + multi]
                    attempts = [Attempt(0, len(first), scores[0], first[:20])]
                    if multi:
                        attempts.append(Attempt(len(first), len(first + second), scores[1], second[:30], "disowning"))
                    multi = multi and scored
                    rows.append(
                        {
                            "trial": f"{condition}/{direction}/{prompt}",
                            "condition": condition,
                            "direction": f"latent:{direction}",
                            "label": short(),
                            "prompt_index": prompt,
                            "prompt": word(),
                            "seed": direction * 10 + prompt,
                            "boost": 3.5 if condition == "incidence" else 0.0,
                            "text": first + (second if len(attempts) > 1 else ""),
                            "n_tokens": 17,
                            "finish": "stop",
                            "state": "scored" if scored else "unscored",
                            "reason": "" if scored else short(),
                            "n_attempts": len(attempts) if scored else np.nan,
                            "explicit_restarts": int(multi),
                            "first_score": scores[0] if scored else np.nan,
                            "last_score": scores[-1] if scored else np.nan,
                            "improvement": scores[-1] - scores[0] if multi else np.nan,
                            "multi_attempt": multi,
                            "improved": multi and scores[-1] > scores[0],
                            "degraded": bool(generator.random() < 0.1),
                            "promoted": direction == 2,
                            "screened": multi,
                            "weight": 1.0,
                            "segments": [50.0, 20.0, 80.0] if prompt == 1 else [],
                            "attempts": attempts if scored else [],
                        }
                    )
        calibration = [
            (f"latent:{d}", short(), *((np.nan, 1, 9) if d > 11 else (2.0 + d, 1.5 + d, 3.0 + d)), 33.0, 20, 90)
            + (("uncalibrated", short()) if d > 11 else ("calibrated", ""))
            + (12.5 if d else np.nan, d - 1.5, d == 2)
            for d in range(14)
        ]
        given: dict[str, Any] = {
            "title": short(),
            "trials": _frame(rows, list(rows[0])),
            "calibration": _frame(calibration, CALIBRATION),
            "exclusions": _frame([(short(), short(), 3, 14)], EXCLUSIONS),
            "stages": _frame([(short(), 12.5, 1000.0), ("judging", 75.0, np.nan)], STAGES),
            "judges": _frame(
                [
                    ("rule", True, 80, 4, *[np.nan] * 6),
                    (short(), False, 70, 6, 1234.0, 34.0, 2.5e6, 5e5, 7e4, 4.2),
                    ("other", False, 9, 0, *[np.nan] * 6),
                ],
                JUDGES,
            ),
            "settings": {"sampling": {"temperature": 0.6}, "name": short(), short(): [1, short()]},
            "provenance": {"esr": "0.1.0", "hash": "ab" * 32},
            "is_organism": True,
        }
        return StudyView(**(given | fields))

    return make


@pytest.fixture(scope="session")
def whole_view(make_view: Callable[..., StudyView]) -> Callable[..., StudyView]:
    """The same with an experiment of every kind; ``words`` also name their conditions and latents."""

    def make(words: tuple[str, ...] = ("plain words",), **fields: Any) -> StudyView:
        view = make_view(words, **fields)
        steered = view.trials[view.trials["condition"].eq("incidence")]
        names = {"sweep": [f"{words[0][:60]} x{k}" for k in range(3)], "other": [f"{words[-1][:60]} arm", "alone"]}
        names = {key: [name.encode("ascii", "replace").decode() for name in some] for key, some in names.items()}
        arms = [view.trials]
        for k, name in enumerate(names["sweep"]):
            arms.append(steered.assign(condition=name, trial=f"s{k}" + steered["trial"], boost=1.75 * (1 + k)))
        part = steered[steered["prompt_index"].gt(0)]
        for k, name in enumerate(names["other"]):
            arms.append(part.assign(condition=name, trial=f"o{k}" + part["trial"], boost=9.0))
        trials = pd.concat(arms, ignore_index=True)
        experiments = (
            ExperimentView("incidence", "How often?", "forest", {"incidence": None}),
            ExperimentView("no-steering", "Without?", "forest", {"no-steering": "incidence"}),
            ExperimentView("boost-sweep", "At what strength?", "sweep", dict.fromkeys(names["sweep"], "incidence")),
            ExperimentView("matched-prefix", "Text?", "forest", {names["other"][0]: names["other"][1], "alone": None}),
        )
        experiments = tuple(_compared(e, trials) for e in experiments)
        others = (
            ExperimentView("otd-discovery", "Which?", "detectors", {}, result=discovery(words)),
            ExperimentView("random-ablation", "Any?", "forest", {}, result=MATCHES),
            ExperimentView("activations", "When?", "courses", {}, result=GROUPS, activations=activation_tables()),
            ExperimentView("fine-tuning", "Trained?", "dose", {}, dose=dose_frame()),
        )
        agreement = judges_agreement(f"{words[0][:50]} a", f"{words[-1][:50]} b", "c")
        return dataclasses.replace(view, trials=trials, experiments=experiments + others, agreement=agreement)

    return make


def _compared(experiment: ExperimentView, trials: pd.DataFrame) -> ExperimentView:
    pairs = [(name, control) for name, control in experiment.controls.items() if control]
    return dataclasses.replace(experiment, comparisons=compare_pairs(trials, pairs, draws=200)) if pairs else experiment


def _frame(rows: list[Any], columns: Any) -> pd.DataFrame:
    """Text as dtype object, as a study's frames have it."""
    values = [tuple(row.values()) if isinstance(row, dict) else row for row in rows]
    data = {
        name: pd.Series([value[i] for value in values], dtype=object if isinstance(values[0][i], str) else None)
        for i, name in enumerate(columns)
    }
    return pd.DataFrame(data)
