"""CPU time of commands that need no model: `esr --help` must stay under half a second.

    python benchmarks/cli_start.py

Each in a process of its own, the median of seven, user and system time together; and which heavy libraries it loaded.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

RUNS, LIMIT = 7, 0.5
HEAVY = ("torch", "transformers", "sae_lens", "inspect_ai", "pandas", "matplotlib", "scipy")
COMMANDS = (["--help"], ["run", "--help"], ["subjects", "--json"], ["experiments", "--json"])
CODE = (
    "import sys; sys.argv[0] = 'esr'\nfrom esr.cli import main\n"
    "try: main()\nexcept SystemExit: pass\n"
    f"print(*(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
)


def cpu(arguments: list[str]) -> tuple[float, str]:
    """Seconds of CPU, and the heavy libraries loaded."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr.strip()


def main() -> None:
    slow = False
    print(f"{'command':<24} {'CPU':>7}   heavy libraries")
    for arguments in COMMANDS:
        runs = [cpu(arguments) for _ in range(RUNS)]
        seconds = statistics.median(time for time, _ in runs)
        slow |= arguments == ["--help"] and seconds >= LIMIT
        print(f"esr {' '.join(arguments):<20} {seconds:>5.2f} s   {runs[0][1] or 'none'}", flush=True)
    sys.exit(f"esr --help takes {LIMIT} s or more" if slow else 0)


if __name__ == "__main__":
    main()
