"""A small study of a tiny random model, and how to look into a study file."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from esr.studies.config import StudyConfig
from esr.studies.new import write_study

PROMPTS = "How do i bake bread?\nExplain how to build a chair.\nHow do you clean the window?\n"
TABLES = ("trials", "responses", "grades", "records")  # all but wall times


def settings(model: Path, sae: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Settings of a study with 4 directions x 5 prompts x 2 conditions."""
    made: dict[str, Any] = {
        "name": "tiny",
        "format": 1,
        "seed": 3,
        "experiments": ["no-steering", "incidence"],
        "subject": {"model": str(model), "sae": {"path": str(sae)}, "steer_layer": 1, "device": "cpu"},
        "sampling": {"temperature": 0.9, "max_new_tokens": 24},
        "prompts": {"file": "prompts.txt", "per_direction": 5},
        "directions": {"count": 4, "relevance": "paper", "relevance_drop": 20},
        "calibration": {"target": 10.0, "upper": 20.0, "prior_mean": 10.0, "prior_sd": 5.0, "rounds": 4},
        "judge": {"name": "rule"},
        "engine": {"batch_size": 32},
    }
    for name, section in sections.items():
        made[name] = {**made[name], **section}
    return made


def make_study(folder: Path, values: dict[str, Any], prompts: str = PROMPTS) -> StudyConfig:
    """Write the study and its prompts."""
    config = write_study(folder, values)
    (folder / "prompts.txt").write_text(prompts, encoding="utf-8")
    return config


def contents(folder: Path) -> dict[str, list[Any]]:
    """Every row of the study file but wall times, in order of keys."""
    connection = sqlite3.connect(folder / "study.sqlite")
    try:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in TABLES}
    finally:
        connection.close()


def run(folder: Path) -> None:
    """Run the study's own experiments."""
    from esr.studies.config import read_config
    from esr.studies.progress import Silent
    from esr.studies.runner import run_study

    config = read_config(folder)
    run_study(folder, config, config.experiments, Silent())


def run_killed(folder: Path, kills: int, total: int, seed: int = 5) -> None:
    """Run a study in processes that are killed (SIGKILL) ``kills`` times, after a random number of stored rows each;
    ``total``: rows of the whole study. The last run is not killed."""
    processes = multiprocessing.get_context("forkserver")  # forks quickly, without the parent's threads
    processes.set_forkserver_preload(["esr.studies.runner", "esr.judging.rule", "transformers", "sae_lens"])
    rng = random.Random(seed)
    for done in range(kills):
        before = count_rows(folder)
        rows = rng.randrange(1, max(2, (total - before) // (kills - done + 1)))
        child = processes.Process(target=run, args=(folder,))
        child.start()
        while count_rows(folder) - before < rows:
            assert child.is_alive(), f"it ended by itself after {done} kills"
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    run(folder)


def count_rows(folder: Path, tables: tuple[str, ...] = ("responses", "grades")) -> int:
    """Rows of the tables stored so far; 0 before there is a file."""
    try:
        connection = sqlite3.connect(f"{(folder / 'study.sqlite').as_uri()}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        counts = [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]
        return int(sum(counts))
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()
