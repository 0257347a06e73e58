"""How long the report of a large study takes to write, and how fast its viewer is in a real browser.

    python benchmarks/report.py                              # 20,000 trials of 2 kB
    python benchmarks/report.py --trials 100000 --no-browser

The study is a real study file (``made_study.py``). Printed as JSON: seconds and CPU seconds to write the report, its
size, the peak memory of the process that wrote it, and in Debian's chromium the first paint, the time until the list
stands and until all responses are searchable, and the response to filters, searches, sorting, opening and comparing:
from the event to the painted result. Exit status 1 when a target for 20,000 trials is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = {"build s": 60, "file MB": 25, "first paint ms": 2000, "slowest filter ms": 200, "first search ms": 200}

_WRITE = """
import resource, sys, time
from pathlib import Path
import esr
from esr.reporting.assemble import write_report
began, cpu = time.perf_counter(), time.process_time()
write_report(esr.open(sys.argv[1]), Path(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.perf_counter() - began, time.process_time() - cpu, peak)
"""

_MEASURE = """
async ([selector, value]) => {
  const node = document.querySelector(selector);
  const root = document.querySelector('#episodes');
  const turn = root.dataset.turn;
  const shown = root.dataset.shown;
  const began = performance.now();
  if (node.matches('input, select')) {
    node.value = value;
    node.dispatchEvent(new Event('input', { bubbles: true }));
    node.dispatchEvent(new Event('change', { bubbles: true }));
  } else node.click();
  const frame = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
  do await frame(); while (root.dataset.busy || (root.dataset.turn === turn && root.dataset.shown === shown));
  await frame();
  return [performance.now() - began, root.querySelector('.v-count').textContent];
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=2000, help="characters of a response")
    parser.add_argument("--no-browser", action="store_true", help="only write the report")
    parser.add_argument("--keep", type=Path, help="a folder for the study and the report, made if it is not there")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="esr-report-"))
    try:
        found = measure(folder, options.trials, options.size, not options.no_browser)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    print(json.dumps(found, indent=2))
    missed = [name for name, limit in TARGETS.items() if name in found and found[name] > limit]
    if missed and options.trials <= 20_000:
        sys.exit(f"missed: {', '.join(missed)}")


def measure(folder: Path, trials: int, size: int, in_browser: bool) -> dict[str, Any]:
    """Everything, by name."""
    from made_study import write_made_study

    study, report = folder / "study", folder / "report.html"
    if not study.exists():
        write_made_study(study, trials, size)
    # a process of its own, so that the peak is that of the report alone
    command = [sys.executable, "-c", _WRITE, str(study), str(report)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, cpu, peak = map(float, printed.split()[-3:])
    found = {"trials": trials, "characters": size, "build s": round(seconds, 1), "build CPU s": round(cpu, 1)}
    found |= {"peak GB": round(peak / 1e9, 2), "file MB": round(report.stat().st_size / 1e6, 1)}
    return found | (browse(report) if in_browser else {})


def browse(report: Path) -> dict[str, Any]:
    """What a reader waits for, in milliseconds."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        sys.exit("no chromium here: apt-get install chromium, or --no-browser")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as b:
        page = b.new_page(viewport={"width": 1400, "height": 900})
        began = time.perf_counter()
        page.goto(report.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("#episodes[data-shown]", state="attached", timeout=60_000)
        listed = time.perf_counter() - began
        page.wait_for_selector("#episodes[data-searchable]", state="attached", timeout=120_000)
        searchable = time.perf_counter() - began
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        found: dict[str, Any] = {
            "first paint ms": round(paint),
            "list stands ms": round(1000 * listed),
            "searchable after ms": round(1000 * searchable),
        }

        def take(selector: str, value: str = "") -> float:
            milliseconds, count = page.evaluate(_MEASURE, [selector, value])
            print(f"{milliseconds:7.0f} ms  {selector} {value}: {count}", file=sys.stderr)
            return milliseconds

        page.evaluate("document.querySelector('#episodes').scrollIntoView()")
        first = take("[name=q]", "right")  # includes the pause of 60 ms after typing
        found["first search ms"] = round(first)
        found["search ms"] = round(
            max(take("[name=q]", word) for word in ("wait", "ea th", '"not right"', "xyzzy", ""))
        )
        filters = {
            "condition": "incidence", "direction": "latent:7", "prompt": "3", "attempts": "restart", "from": "50",
            "degraded": "without", "unscored": "only",
        }  # fmt: skip
        times = [take(f"[name={name}]", value) for name, to in filters.items() for value in (to, "")]
        times += [take("[name=sort]", order) for order in ("change", "direction", "attempts", "study")]
        found["slowest filter ms"] = round(max(times))
        found["open a trial ms"] = round(max(take("[data-act=next]") for _ in range(5)))
        found["compare ms"] = round(take("[name=with]", "no-steering"))
    return found


if __name__ == "__main__":
    main()
