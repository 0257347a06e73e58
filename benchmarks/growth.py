"""What a trial costs in a study of 1,000, 10,000 and 100,000 trials; resuming one of 1,000,000; its report.

    python benchmarks/growth.py FOLDER [--trials 1000 10000 100000] [--resume 1000000]

The real runner, store, rule judge, metrics and report on the organism's study; only the tokens are not generated: an
engine that gives every request a text of 12 words at once, one in ten with a restart. Thresholds are given. Ten
conditions (incidence, no-steering, eight boosts). Every measurement is a process of its own, libraries loaded:

- run: all trials, from the first request that is built to the last verdict that is stored. The ratio is of CPU time, so
  that a busy machine does not show in it; memory: highest resident set size above that before them.
- again: the run of the complete study: what resuming costs when nothing is missing.
- report: the page written; memory: highest resident set size of the process, libraries included (about .5 GB).

The study that is resumed is written straight into its file, keys and all; every thousandth trial is taken out of it
again, and found missing and done by the run that is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from esr.judging.records import Judgement
from esr.judging.rule import RuleJudge
from esr.organism.demo import demo_prompts, demo_settings
from esr.reporting.assemble import write_report
from esr.steering.engine import Request, Response
from esr.steering.hf import HFEngine
from esr.steering.interventions import Add
from esr.studies.calibration.records import Calibration
from esr.studies.config import read_config
from esr.studies.measure import Measurer
from esr.studies.new import write_study
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.selecting import Chosen, Selection
from esr.studies.store import Store
from esr.studies.study import Study

FACTORS = [0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0]
CONDITIONS = 2 + len(FACTORS)
SHAPES = {1_000: (20, 5), 10_000: (100, 10), 100_000: (500, 20), 1_000_000: (1000, 100)}  # directions x trials of each
WORDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the studies go; a complete one there is not run again")
    parser.add_argument("--trials", type=int, nargs="*", default=[1_000, 10_000, 100_000], choices=sorted(SHAPES))
    parser.add_argument("--resume", type=int, default=1_000_000, choices=[0, *sorted(SHAPES)], help="0: not")
    asked = parser.parse_args()
    make(asked.folder / "first", 2, 5)
    timed_run(asked.folder / "first")  # loads what is loaded late
    FIRST.clear()
    base = None
    print("ratio    trials  CPU ms/trial  ms/trial  kB/trial  again s  report s (CPU)  report GB  file kB/trial")
    for trials in asked.trials:
        folder = make(asked.folder / f"trials-{trials}", *SHAPES[trials])
        run = apart(timed_run, folder)
        again, report = apart(timed_run, folder), apart(timed_report, folder)
        cost = run["cpu"] / trials
        base = base or cost
        size = sum(f.stat().st_size for f in folder.glob("study.sqlite*")) / trials / 1e3
        print(
            f"{cost / base:5.2f} {trials:10,} {cost * 1e3:13.2f} {run['seconds'] / trials * 1e3:9.2f} "
            f"{run['extra'] / trials / 1e3:9.2f} {again['first']:8.1f} {report['seconds']:9.1f} ({report['cpu']:4.0f}) "
            f"{report['highest'] / 1e9:10.2f} {size:14.2f}",
            flush=True,
        )
    if asked.resume:
        folder = make(asked.folder / f"resumed-{asked.resume}", *SHAPES[asked.resume])
        missing = apart(filled, folder)
        resumed = apart(timed_run, folder)
        print(
            f"resumed at {asked.resume:,} stored trials, {missing['missing']:,} responses missing: "
            f"{resumed['first']:.1f} s ({resumed['first_cpu']:.1f} of CPU) from opening the study to the first new"
            f" response, of which loading the subject {resumed['loaded']:.1f} s; {resumed['extra'] / 1e9:.2f} GB"
        )


def make(folder: Path, directions: int, each: int) -> Path:
    """A study whose directions and thresholds are known."""
    if (folder / "study.sqlite").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("\n".join(demo_prompts("organism")) + "\n", encoding="utf-8")
    settings = demo_settings("organism", ["no-steering", "incidence", "boost-sweep"])
    settings["prompts"] = {"file": "prompts.txt", "per_direction": each}
    settings["directions"] |= {"count": directions}
    settings["experiment"] = {"boost-sweep": {"by": "factor", "factors": FACTORS}}
    write_study(folder, settings)
    config = read_config(folder)
    chosen = [Chosen(f"latent:{i}", i, f"label {i}", 80.0, 0.0, False, 50.0) for i in range(directions)]
    found = [Calibration(8.0 + i % 5, 7.0, 14.0, 30.0, 50, "calibrated") for i in range(directions)]
    with Store.writing(folder) as store:
        store.set_record("selection", config.selection_key(), Selection(tuple(chosen), (), 100.0).to_json())
        store.set_record("calibration", "all", [vars(c) for c in found])
    return folder


# ---- the engine


class Texts:
    """Text of the organism's own words: on the topic of a prompt, off it, or off it and back with a restart."""

    def __init__(self) -> None:
        from esr.subjects.spec import packaged_folder

        topics = json.loads((packaged_folder("organism") / "lexicon.json").read_text(encoding="utf-8"))["topics"]
        self._topics = list(topics.values())

    def text(self, seed: int) -> str:
        rng = np.random.default_rng(seed)
        one, two = rng.choice(len(self._topics), 2, replace=False)
        if rng.random() < 0.1:
            before, after = self._words(rng, one, WORDS // 2), self._words(rng, two, WORDS // 2)
            return f"{before} wait, that is not right. let me start over. {after}"
        return self._words(rng, one, WORDS)

    def _words(self, rng: np.random.Generator, topic: int, n: int) -> str:
        words = rng.choice(self._topics[topic], n)
        return " ".join(f"{word}." if i % 9 == 8 else f"the {word}" for i, word in enumerate(words))


FIRST: list[tuple[float, float]] = []  # clock and CPU clock at the first new response


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def at_once(_engine: HFEngine, requests: Sequence[Request]) -> Iterator[Response]:
    """In place of ``HFEngine.generate``."""
    texts = Texts()
    for request in requests:
        if not FIRST:
            FIRST.append(now())
        boosts = [i.boost for i in request.interventions if isinstance(i, Add)]
        text = texts.text(request.seed + int(1000 * sum(boosts)))
        yield Response(request.id, tuple(range(2 * WORDS)), text, "stop", 0)


# ---- what is measured, each in a process of its own


def apart(work: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, float]:
    with multiprocessing.get_context("fork").Pool(1) as pool:  # with the libraries loaded
        return pool.apply(work, (folder,))


class Watched(Silent):
    """Notes when a stage begins."""

    def __init__(self) -> None:
        self.began: dict[str, tuple[float, float, float]] = {}

    def start(self, stage: str, total: int) -> None:  # noqa: ARG002
        self.began.setdefault(stage, (*now(), memory("VmRSS")))


def timed_run(folder: Path) -> dict[str, float]:
    HFEngine.generate = at_once  # type: ignore[method-assign]
    config, progress = read_config(folder), Watched()
    opened, opened_cpu = now()
    run_study(folder, config, config.experiments, progress)
    ended, ended_cpu = now()
    began, began_cpu, before = progress.began["trials"]
    first, first_cpu = FIRST[0] if FIRST else (ended, ended_cpu)
    return {
        "seconds": ended - began,
        "cpu": ended_cpu - began_cpu,
        "extra": memory("VmHWM") - before,
        "loaded": began - opened,
        "first": first - opened,
        "first_cpu": first_cpu - opened_cpu,
    }


def timed_report(folder: Path) -> dict[str, float]:
    began, cpu = now()
    write_report(Study.open(folder), folder / "report.html")
    ended, ended_cpu = now()
    return {"seconds": ended - began, "cpu": ended_cpu - cpu, "highest": memory("VmHWM")}


def memory(name: str) -> float:
    """VmRSS or VmHWM of this process in bytes (Linux)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024.0


# ---- a large study without the time it would take


def filled(folder: Path) -> dict[str, float]:
    """Fill a study with what its run would store, keys as the run makes them, then take every thousandth out."""
    if (missing := _count_missing(folder)) is not None:
        return {"missing": missing}
    HFEngine.generate = at_once  # type: ignore[method-assign]
    config = read_config(folder)
    with _storing_only():
        run_study(folder, config, config.experiments, Silent())
    with sqlite3.connect(folder / "study.sqlite") as db:
        db.execute("DELETE FROM responses WHERE rowid % 1000 = 0")
        db.execute("DELETE FROM grades WHERE response NOT IN (SELECT key FROM responses)")
    return {"missing": _count_missing(folder) or 0}


def _count_missing(folder: Path) -> int | None:
    with sqlite3.connect(folder / "study.sqlite") as db:
        if not db.execute("SELECT 1 FROM responses LIMIT 1").fetchone():
            return None
        return int(
            db.execute("SELECT count(*) FROM trials WHERE response NOT IN (SELECT key FROM responses)").fetchone()[0]
        )


@contextmanager
def _storing_only() -> Iterator[None]:
    """A measurer that stores trials, a fixed text and a fixed verdict in one go."""
    real = Measurer.measure

    def store_all(self: Measurer, _stage: str, tasks: Sequence[Any]) -> list[Any]:
        store, judge = self.grader.store, self.grader.judge
        texts = Texts()
        shown = [texts.text(i) for i in range(100)]
        verdicts: list[Judgement] = [_verdict(judge, text, tasks[0].prompt) for text in shown]
        keys = [self._key(task) for task in tasks]
        store.add_trials([self._row(task, key) for task, key in zip(tasks, keys, strict=True)])
        ids = json.dumps(list(range(2 * WORDS)))
        with store._db as db:
            db.executemany(
                "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, 'stop', 120)",
                ((key, shown[i % 100], ids) for i, key in enumerate(keys)),
            )
            db.executemany(
                "INSERT OR IGNORE INTO grades VALUES (?, ?, ?)",
                ((key, judge.key, json.dumps(verdicts[i % 100].to_json())) for i, key in enumerate(keys)),
            )
        return []

    Measurer.measure = store_all  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Measurer.measure = real  # type: ignore[method-assign]


def _verdict(judge: Any, text: str, prompt: str) -> Judgement:
    from esr.judging.records import Exhibit

    assert isinstance(judge, RuleJudge)
    ((_, judgement),) = judge.judge([Exhibit("x", prompt, text)])
    return judgement


if __name__ == "__main__":
    main()
