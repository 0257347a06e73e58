"""How the score of the organism's responses falls with the boost: many generations per direction and boost.

    python benchmarks/curves.py                            # organism: benchmarks/data/curves-organism.npz
    python benchmarks/curves.py --subject organism-naive   # a quarter of an hour of one core each

The directions, prompts and lengths are those of the demo's calibration. A direction's generations have the same prompts
and seeds at every boost. `benchmarks/calibration.py` and `benchmarks/surrogate.py` read the file:

    boosts     float64 [boosts], in latent units
    scores     uint8 [directions, boosts, generations], first-attempt score 0-100 by the rule judge; 255: unscored
    latents    int64 [directions]
    unsteered  float64: mean score of the study's unsteered responses
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads

import numpy as np

from esr.judging.records import Exhibit, Scored
from esr.organism.demo import demo_prompts, demo_settings
from esr.steering.hf import HFEngine
from esr.steering.interventions import Direction
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.grid import draw_cells
from esr.studies.judges import make_judge
from esr.studies.new import write_study
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.study import Study
from esr.subjects.loading import load_subject
from esr.subjects.prompts import read_prompts

DATA = Path(__file__).parent / "data"
UNSCORED = 255


def make_study(subject: str, folder: Path, count: int, *, surrogate: bool = False) -> Study:
    """The demo's study of a packaged subject with its directions chosen and calibrated; ``count``: at most so many."""
    if not (folder / "study.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prompts.txt").write_text("\n".join(demo_prompts(subject)) + "\n", encoding="utf-8")
        settings = demo_settings(subject, ["no-steering"])
        settings["directions"]["count"] = count
        settings["calibration"]["surrogate"] = surrogate
        write_study(folder, settings | {"experiment": {}})
    study = Study.open(folder)
    run_study(folder, study.config, ["no-steering"], Silent())
    return study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default="organism", help="packaged subject (default %(default)s)")
    parser.add_argument("--directions", type=int, default=48, help="at most (default %(default)s)")
    parser.add_argument("--boosts", type=int, default=16, help="between --lowest and --highest, evenly in the log")
    parser.add_argument("--lowest", type=float, default=6.0)
    parser.add_argument("--highest", type=float, default=60.0)
    parser.add_argument("--generations", type=int, default=48, help="per direction and boost (default %(default)s)")
    parser.add_argument("--out", type=Path, help="default: benchmarks/data/curves-SUBJECT.npz")
    arguments = parser.parse_args()
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="esr-curves-"))
    study = make_study(arguments.subject, folder, arguments.directions)
    subject = load_subject(study.config.subject)
    asker = Asker(study.config, subject, tuple(read_prompts(folder / "prompts.txt")))
    judge, engine = make_judge(study.config.judge, study.config.subject, folder), HFEngine(subject, 240)
    latents = np.array([int(latent) for latent in study.directions["latent"]])
    boosts = np.geomspace(arguments.lowest, arguments.highest, arguments.boosts)
    scores = np.full((len(latents), len(boosts), arguments.generations), UNSCORED, dtype=np.uint8)
    for d, id in enumerate(study.directions["id"]):
        direction = Direction(id, subject.require_reader().direction(int(latents[d])))
        cells = draw_cells(study.config.seed, "curves", [id], len(asker.prompts), arguments.generations)
        places = [(b, c) for b in range(len(boosts)) for c in range(len(cells))]
        requests = [
            replace(
                asker.task("curves", Condition("curves"), cells[c], direction, boosts[b], share_of_length=0.5).request,
                id=str(i),
            )
            for i, (b, c) in enumerate(places)
        ]
        texts = {int(r.id): r.text for r in engine.generate(requests)}
        exhibits = [Exhibit(str(i), asker.prompts[cells[c].prompt_index], texts[i]) for i, (_, c) in enumerate(places)]
        for (b, c), (_, verdict) in zip(places, judge.judge(exhibits), strict=True):
            if isinstance(verdict, Scored):
                scores[d, b, c] = round(verdict.attempts[0].score)
        means = np.ma.masked_equal(scores[d], UNSCORED).mean(axis=1)
        print(
            f"{d + 1} of {len(latents)}, {time.perf_counter() - began:.0f} s, {id}: {means.round().tolist()}",
            flush=True,
        )
    out = arguments.out or DATA / f"curves-{arguments.subject}.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, boosts=boosts, scores=scores, latents=latents, unsteered=study.unsteered_score)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
