"""Does the surrogate predict? What next-token divergence says about where the score falls, on the organism.

    python benchmarks/surrogate.py             # the table, and docs/img/surrogate.png; from benchmarks/data
    python benchmarks/surrogate.py --measure   # read the divergences anew first: about a minute on one core

x is the log boost at which the mean total variation between the next-token distributions with and without the boost
reaches a level, over the study's unsteered responses: forward passes only. y is measured (`benchmarks/curves.py`): the
log boost at which the mean score of many judged generations falls through half of the unsteered score, or through the
target. R2 is that of a line through y on x, every direction predicted from the others. The calibration learns line and
level from the few scores it has; how many of them that saves, `benchmarks/calibration.py` says.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads

import matplotlib
import numpy as np
from calibration_worlds import DATA, TARGET, Array, Measured, left_out_r2

from esr.studies.calibration.surrogate import LEVELS

FIGURE = Path(__file__).parents[1] / "docs" / "img" / "surrogate.png"


def measure(subject: str) -> None:
    """Read the divergences of the demo's directions, as a study with a surrogate does, into the data file."""
    from curves import make_study

    study = make_study(subject, Path(tempfile.mkdtemp(prefix="esr-surrogate-")), 48, surrogate=True)
    table = study.surrogate.pivot(index="direction", columns="boost", values="variation")
    table = table.loc[study.directions["id"]]
    out = DATA / f"surrogate-{subject}.npz"
    np.savez_compressed(
        out,
        boosts=table.columns.to_numpy(float),
        variation=table.to_numpy(),
        latents=study.directions["latent"].astype(int).to_numpy(),
    )
    print(f"{out}: {len(table)} directions, {out.stat().st_size / 1e3:.0f} kB")


def fitted(x: Array, y: Array) -> tuple[float, float, float]:
    """Slope, intercept and residual standard deviation of the line through y on x."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float((y - slope * x - intercept).std(ddof=2))


def table(world: Measured) -> list[dict[str, float]]:
    """One row per level: how well it predicts both."""
    middle, threshold = world.crossing(world.unsteered / 2), world.thresholds
    rows = []
    for level, x in zip(LEVELS, world.found, strict=True):
        slope, _, spread = fitted(x, middle)
        rows.append({
            "level": level, "middle": left_out_r2(x, middle), "threshold": left_out_r2(x, threshold),
            "slope": slope, "spread": spread,
        })  # fmt: skip
    return sorted(rows, key=lambda row: row["level"])


def draw(world: Measured, path: Path) -> None:
    """Scatter of both against the first level's hint."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x = world.found[0]
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True, layout="constrained")
    for ax, y, name in (
        (axes[0], world.crossing(world.unsteered / 2), "score has fallen by half"),
        (axes[1], world.thresholds, f"score is {TARGET:g} (threshold)"),
    ):
        slope, intercept, spread = fitted(x, y)
        line = np.linspace(x.min() - 0.05, x.max() + 0.05, 50)
        band = slope * line + intercept
        ax.fill_between(np.exp(line), np.exp(band - spread), np.exp(band + spread), alpha=0.15, color="#4269d0", lw=0)
        ax.plot(np.exp(line), np.exp(band), color="#4269d0", lw=1.5)
        ax.plot(np.exp(x), np.exp(y), "o", color="#1b1e23", ms=4, alpha=0.7)
        ax.set(
            xscale="log", yscale="log", title=f"left-out R2 {left_out_r2(x, y):.2f}, residual ± {100 * spread:.0f} %",
            xlabel=f"boost at which next tokens move by {LEVELS[0]:g}\n(total variation; no generation, no judge)",
            ylabel=f"boost at which the {name}\n(40 judged generations per boost)",
        )  # fmt: skip
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
            axis.set_major_locator(matplotlib.ticker.FixedLocator([5, 10, 15, 20, 30, 40, 60]))
        ax.grid(alpha=0.2)
    figure.suptitle(f"{world.name}: {len(world)} directions; no evidence about large models", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", default="organism", help="packaged subject (default %(default)s)")
    parser.add_argument("--measure", action="store_true", help="read the divergences anew")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="default: docs/img/surrogate.png")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.subject)
    world = Measured.read(arguments.subject)
    print(f"{world.name}: {len(world)} directions, {world.left_out} left out that never pass {TARGET:g}\n")
    print("| total variation | R2: fallen by half | R2: threshold | slope | residual sd, log boost |\n|" + "---|" * 5)
    for row in table(world):
        print(
            f"| {row['level']:g} | {row['middle']:.2f} | {row['threshold']:.2f} | {row['slope']:.2f}"
            f" | {row['spread']:.3f} |"
        )
    draw(world, arguments.figure)
    print(f"\n{arguments.figure}")


if __name__ == "__main__":
    main()
