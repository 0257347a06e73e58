"""A study file of any size, written through ``Store`` as a run writes it: for benchmarks that need no model.

Responses are made-up words (20,000 of them, drawn by Zipf's law, so that they pack about as well as English), half
under incidence, half under no-steering, over 100 directions and 20 prompts; a sixth restart, one in 97 is unscored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from esr.judging.degraded import DEGRADED_VERSION, is_degraded
from esr.judging.records import Attempt, Scored, Unscored
from esr.judging.screen import SCREEN_VERSION
from esr.organism.demo import demo_prompts, demo_settings
from esr.steering.engine import Response
from esr.studies.calibrating import to_json
from esr.studies.calibration.records import Calibration
from esr.studies.judges import Coverage, make_judge, record_judge
from esr.studies.lock import check_settings
from esr.studies.new import write_study
from esr.studies.selecting import Chosen, Selection
from esr.studies.store import Store, TrialRow
from esr.studies.study import Study

CONDITIONS = ("incidence", "no-steering")
DIRECTIONS, PROMPTS = 100, 20
RESTART = "Wait, that is not right. "


def write_made_study(folder: Path, trials: int, size: int = 2000) -> Study:
    """A study of so many trials with responses of ``size`` characters. ``folder`` must not exist."""
    folder.mkdir(parents=True)
    (folder / "prompts.txt").write_text("\n".join(demo_prompts("organism")) + "\n", encoding="utf-8")
    write_study(folder, demo_settings("organism", list(CONDITIONS)))
    study = Study.open(folder)
    config = study.config
    judge = make_judge(config.judge, config.subject, folder)
    chosen = [Chosen(f"latent:{d}", d, f"label of {d}", 50.0, 0.0, False, float("nan")) for d in range(DIRECTIONS)]
    found = [Calibration(3.5, 3.0, 4.0, 30.0, 20, "calibrated") for _ in chosen]
    generator = np.random.default_rng(1)
    with Store.writing(folder) as store:
        check_settings(store, config)
        record_judge(store, judge, config.judge, Coverage.of(config.judge))
        store.set_record("selection", config.selection_key(), Selection(tuple(chosen), (), 90.0).to_json())
        store.set_record("calibration", "all", to_json(found))
        for name, control in zip(CONDITIONS, (None, "incidence"), strict=True):
            store.set_record("experiment", name, {"settings": {}, "controls": {name: control}})
        rows = []
        for i, (text, middle) in enumerate(made_responses(trials, size)):
            cell = i // 2
            direction, prompt = f"latent:{cell % DIRECTIONS}", cell // DIRECTIONS % PROMPTS
            key = f"{i:032x}"
            place = ("trial", CONDITIONS[i % 2], direction, prompt, f"Explain how to do thing {prompt}.", cell)
            rows.append(TrialRow(key, *place, 3.5 * (1 - i % 2), key))
            if i % 6:
                text = text.replace(RESTART, "")
            store.add_response(key, Response(key, tuple(range(size // 5)), text, "stop", 0))
            first, last = (float(score) for score in generator.integers(0, 101, 2))
            attempts = [Attempt(0, len(text), first, text[:30])]
            store.add_marks(key, (SCREEN_VERSION, i % 6 == 0), (DEGRADED_VERSION, is_degraded(text)))
            if i % 6 == 0:
                quote = text[middle : middle + 24]
                attempts = [
                    Attempt(0, middle, first, text[:30]),
                    Attempt(middle, len(text), last, quote, "disowning"),
                ]
            store.add_grade(key, judge.key, Unscored("timeout") if i % 97 == 0 else Scored(tuple(attempts)))
        store.add_trials(rows)
    return study


def made_responses(count: int, size: int, seed: int = 0) -> Iterator[tuple[str, int]]:
    """Texts of about ``size`` characters, and where the second half of each begins."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    weight = 1 / np.arange(3, len(letters) + 3)
    words = ["".join(generator.choice(letters, n, p=weight / weight.sum())) for n in generator.integers(2, 11, 20_000)]
    frequency = 1 / np.arange(1, len(words) + 1)
    total = np.cumsum(frequency / frequency.sum())
    for _ in range(count):
        drawn = [words[i] for i in np.searchsorted(total, generator.random(size // 4))]
        half = len(drawn) // 2
        first = " ".join(drawn[:half])[: size // 2] + ". "
        yield (first + RESTART + " ".join(drawn[half:]))[:size], len(first)
