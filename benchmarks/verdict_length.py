"""What a verdict costs: output tokens of our form against copying the attempts out, over the labelled set.

    python benchmarks/verdict_length.py

Both sides are counted in one run, with the organism's tokenizer (a word or mark is a token) and with a split that cuts
words and digits about as byte-pair encodings do. The verdict is the one the labels ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from esr.judging.labelled import LabelledResponse, load_labelled


def true_verdict(row: LabelledResponse) -> dict[str, Any]:
    """The verdict that the labels ask for, restarts quoted by their first 6 words (12 characters without spaces)."""
    texts = [row.response[a.start : a.end] for a in row.attempts]
    quotes = [" ".join(t.split()[:6]) if " " in t[:12] else t[:12] for t in texts]
    return {
        "restarts": [{"quote": q, "kind": a.kind or "redo"} for q, a in zip(quotes[1:], row.attempts[1:], strict=True)],
        "scores": [a.score_low for a in row.attempts],
    }


def copied_out(row: LabelledResponse) -> dict[str, Any]:
    """The reference's form: every attempt's text, and its score."""
    return {"attempts": [{"text": row.response[a.start : a.end], "score": 50} for a in row.attempts]}


def pieces(text: str) -> int:
    """Tokens of a split that cuts words at 7 letters and numbers at 3 digits."""
    return len(re.findall(r" ?[^\W\d_]{1,7}|\d{1,3}|[^\w\s]+|\s+", text))


def lengths(rows: list[LabelledResponse], count: Callable[[str], int]) -> tuple[int, int]:
    """(tokens of our verdicts, tokens of copying the attempts out)."""

    def total(form: Callable[[LabelledResponse], dict[str, Any]]) -> int:
        return sum(count(json.dumps(form(row), ensure_ascii=False)) for row in rows)

    return total(true_verdict), total(copied_out)


def main() -> None:
    from esr.organism.tokenizer import build_tokenizer

    rows = [row for row in load_labelled() if row.attempts]
    organism = build_tokenizer()
    counters: dict[str, Callable[[str], int]] = {
        "organism's tokenizer": lambda text: len(organism(text, add_special_tokens=False)["input_ids"]),
        "split like byte pairs": pieces,
    }
    print(f"{'ratio':>6} {'verdict':>8} {'copied':>8}  counted with ({len(rows)} responses)")
    for name, count in counters.items():
        ours, copied = lengths(rows, count)
        print(f"{ours / copied:6.2f} {ours / len(rows):8.1f} {copied / len(rows):8.1f}  {name}")


if __name__ == "__main__":
    main()
