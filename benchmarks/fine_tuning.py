"""Known truth of the organism: fine-tuning on self-correction examples raises the rate of one that never had any.

    python benchmarks/fine_tuning.py FOLDER [--shares 10,50,90]

Makes a study of `organism-naive` (48 directions x 5 prompts) in FOLDER, splices examples from its own responses, trains
one LoRA adapter per share, and measures each with thresholds of its own. About ten minutes on one free core for three
shares; it can be stopped and run again. Ends with the table of `esr fine-tune`, for all prompts and for those held out.

The hyperparameters are not the published ones: a model of a million parameters that was trained from nothing needs a
learning rate fifty times higher. Ranks, dropout, epochs and number of examples are as published.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads wait for each other at tiny matrices

TRAINING = {"learning_rate": 0.01, "batch": 16, "micro_batch": 8}


def main() -> None:
    import pandas as pd

    from esr.cli.app import console
    from esr.finetuning.dose import dose_response
    from esr.finetuning.settings import read_settings
    from esr.finetuning.shares import run_fine_tuning
    from esr.organism.demo import make_demo
    from esr.reporting.dose_figure import dose_response_figure
    from esr.reporting.dose_table import dose_table
    from esr.reporting.figures import png
    from esr.studies.config import read_config
    from esr.studies.progress import Lines

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the study goes")
    parser.add_argument("--shares", default="10,50,90", help="per cent of self-correction examples")
    given = parser.parse_args()
    folder = make_demo(given.folder)["organism-naive"]
    config = read_config(folder)
    shares = tuple(int(share) for share in given.shares.split(","))
    settings = read_settings(folder, config, shares=shares, training=TRAINING)
    began = time.monotonic()
    run_fine_tuning(folder, config, Lines(lambda line: print(line, flush=True)), settings)
    frame = dose_response(folder)
    console().print(dose_table(frame))
    console().print("The same for the prompts that no training example had:")
    console().print(dose_table(dose_response(folder, "held out")))
    differences = [c for c in frame if c.startswith("multi_attempt_difference")]
    with pd.option_context("display.width", 120, "display.max_columns", 20, "display.precision", 3):
        print(frame[["share", "self_correction", "ordinary", "final_loss", *differences]].to_string())
    (folder / "dose-response.png").write_bytes(png(dose_response_figure(frame)))
    print(f"{time.monotonic() - began:.0f} s; figure: {folder / 'dose-response.png'}")


if __name__ == "__main__":
    main()
