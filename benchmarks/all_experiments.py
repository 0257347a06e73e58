"""Every experiment of one run on the organism: 40 directions x 5 prompts, the table, and which known truths come out.

Run: python benchmarks/all_experiments.py [FOLDER]     (go on with the same folder after a stop; default: a new one)
These figures validate the instrument on a small trained organism; they say nothing about large models.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads

import pandas as pd

from esr.analysis.metrics import summarise
from esr.organism.demo import demo_prompts, demo_settings
from esr.organism.truths import findings
from esr.studies.config import read_config
from esr.studies.new import write_study
from esr.studies.progress import Lines
from esr.studies.runner import run_study
from esr.studies.study import Study

COLUMNS = (
    "| experiment | condition | n, unscored, degraded | multi-attempt % | ESR % (95 %) | first score"
    " | ESR - control, pp (Holm p) |"
)


def main(folder: Path) -> None:
    """Run what is missing and print the table as Markdown."""
    if not (folder / "study.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prompts.txt").write_text("\n".join(demo_prompts("organism")) + "\n", encoding="utf-8")
        settings = demo_settings("organism", ["all"])
        settings["directions"]["count"] = 40
        settings["experiment"] = {}
        write_study(folder, settings)
    began = time.monotonic()
    config = read_config(folder)
    run_study(folder, config, config.experiments, Lines(lambda line: print(line, file=sys.stderr)))
    minutes = (time.monotonic() - began) / 60
    study = Study.open(folder)
    trials = study.trials
    rates = summarise(trials, seed=study.config.seed).set_index("condition")
    print(f"{COLUMNS}\n|{'---|' * 7}")
    for key, ran in study.experiments.items():
        compared = study.comparisons(key, trials)
        for name, control in ran.controls.items():
            print(_row(key, rates.loc[name], name, control, compared))
    for found in findings(study, trials):
        said = {True: "recovered", False: "NOT recovered", None: "left open"}[found.recovered]
        print(f"\n{said}: {found.truth}. {found.evidence}.")
    print(f"\n{len(trials)} trials, this run {minutes:.1f} minutes. Study: {folder}")


def _row(key: str, rate: pd.Series, name: str, control: str | None, compared: pd.DataFrame) -> str:
    difference = ""
    if len(compared):
        found = compared[compared["treatment"].eq(name) & compared["statistic"].eq("esr_rate")]
        for row in found.itertuples():
            low, high, p = 100 * row.difference_low, 100 * row.difference_high, row.p_holm
            said = "<.001" if p < 0.001 else f"{p:.3f}"
            difference = f"{100 * row.difference:+.1f} ({low:+.1f} to {high:+.1f}), p {said}"
            difference += f"; control: {control}" if control != "incidence" else ""
    return (
        f"| {key} | {name} | {rate['n_trials']}, {rate['n_unscored']}, {rate['n_degraded']}"
        f" | {100 * rate['multi_attempt_rate']:.1f}"
        f" | {100 * rate['esr_rate']:.1f} ({100 * rate['esr_rate_low']:.1f} to {100 * rate['esr_rate_high']:.1f})"
        f" | {rate['mean_first_score']:.1f} | {difference} |"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="esr-all-")))
