"""Examples from a study's own responses: its episodes, splices of its responses, and its ordinary answers.

All take the frame ``Study.trials``, and give the same list whatever the order of its rows. Degraded responses are never
used, nor those that continue a text given to them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from esr.errors import UserError
from esr.finetuning.examples import Example, Segment
from esr.judging.lexicon import Lexicon
from esr.judging.records import Attempt
from esr.studies.grid import generator
from esr.subjects.prompts import read_prompts
from esr.subjects.spec import SubjectSpec

UNSTEERED = "no-steering"
"""The condition whose responses are ordinary answers."""

_LATEST_CUT = 0.75
"""An off-topic start is cut from the first three quarters of a response."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_WORD_END = re.compile(r"\s+")


def split_prompts(prompts: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """(prompts to train on, prompts held out), drawn at random; each keeps the order given and has at least one.

    Raises UserError for fewer than two prompts.
    """
    if len(prompts) < 2:
        raise UserError("a fine-tuning holds prompts out, so its study has at least two", len(prompts))
    count = min(len(prompts) - 1, max(1, round(share * len(prompts))))
    held = set(generator(seed, "fine-tuning held-out").permutation(len(prompts))[:count].tolist())
    return [p for i, p in enumerate(prompts) if i not in held], [p for i, p in enumerate(prompts) if i in held]


def episodes(trials: pd.DataFrame, prompts: Collection[str], seed: int) -> list[Example]:
    """Every multi-attempt response that improved, in a seeded order, under any condition; the prompt is the bare one.

    The first attempt is masked, up to where the judge saw the second begin, and so is every later attempt that scores
    no higher than the first. Empty when there is none.
    """
    improved = trials[trials["improved"].astype(bool) & _sound(trials, prompts)]
    rows = _ordered(improved)
    found = [example for row in rows if (example := _episode(row)) is not None]
    return [found[i] for i in generator(seed, "fine-tuning episodes").permutation(len(found))]


def _episode(row: dict[str, Any]) -> Example | None:
    attempts: list[Attempt] = row["attempts"]
    text, first = row["text"], attempts[0].score
    starts = [0, *(a.start for a in attempts[1:])]
    segments = [
        Segment(text=text[start:end], train=attempt.score > first)
        for attempt, start, end in zip(attempts, starts, [*starts[1:], len(text)], strict=True)
        if end > start
    ]
    if not segments[-1].train or not segments[-1].text.strip():
        return None
    return Example(
        prompt=row["prompt"], segments=_joined(segments), source="study", ends=row["finish"] == "stop",
        origin=f"{row['condition']}, {row['direction']}, trial {row['trial'][:12]}",
    )  # fmt: skip


def _joined(segments: list[Segment]) -> tuple[Segment, ...]:
    """Neighbours of one kind as one segment."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and joined[-1].train == segment.train:
            joined[-1] = Segment(text=joined[-1].text + segment.text, train=segment.train)
        else:
            joined.append(segment)
    return tuple(joined)


def ordinary_answers(trials: pd.DataFrame, prompts: Collection[str], at_least: float) -> list[Example]:
    """The distinct unsteered responses with one attempt and a first score of at least ``at_least``, by prompt."""
    good = (
        trials["condition"].eq(UNSTEERED)
        & trials["state"].eq("scored")
        & trials["n_attempts"].eq(1)
        & trials["first_score"].ge(at_least)
        & _sound(trials, prompts)
    )
    rows = {(row["prompt"], row["text"]): row for row in _ordered(trials[good])}
    return [
        Example(
            prompt=prompt, segments=(Segment(text=text, train=True),), source="ordinary", ends=row["finish"] == "stop",
            origin=f"{UNSTEERED}, trial {row['trial'][:12]}",
        )
        for (prompt, text), row in sorted(rows.items(), key=lambda item: item[0])
    ]  # fmt: skip


def constructed(
    trials: pd.DataFrame,
    answers: Sequence[Example],
    prompts: Sequence[str],
    restarts: Sequence[str],
    *,
    at_most: float,
    count: int,
    seed: int,
) -> list[Example]:
    """``count`` splices: an off-topic start, a restart phrase, an ordinary answer to the same prompt.

    The start is cut at a sentence's end from a steered response to that prompt with one attempt and a first score of at
    most ``at_most``; where a prompt has none, from an ordinary answer to another prompt. Prompts take turns in a random
    order; example i is drawn from (seed, i) alone. Raises UserError when nothing can be spliced.
    """
    by_prompt: dict[str, list[Example]] = defaultdict(list)
    for answer in answers:
        by_prompt[answer.prompt].append(answer)
    usable = [prompt for prompt in prompts if by_prompt[prompt]]
    if not usable:
        raise UserError(
            "an example is built around an ordinary answer", f"none to {len(prompts)} prompts",
            "Lower ordinary_at_least, or look at the unsteered responses",
        )  # fmt: skip
    starts = _off_topic_starts(trials, usable, at_most)
    for prompt in usable:
        starts[prompt] = starts[prompt] or [
            (answer.text, f"an answer to {answer.prompt!r}")
            for other in usable if other != prompt for answer in by_prompt[other]
        ]  # fmt: skip
    usable = [prompt for prompt in usable if starts[prompt]]
    if not usable:
        raise UserError(
            "an example opens with off-topic text", f"no steered response scores at most {at_most:g}",
            "Raise off_topic_at_most, or use several prompts",
        )  # fmt: skip
    return [_splice(i, usable, starts, by_prompt, restarts, seed) for i in range(count)]


def _off_topic_starts(trials: pd.DataFrame, prompts: list[str], at_most: float) -> dict[str, list[tuple[str, str]]]:
    steered = (
        trials["boost"].ne(0)
        & trials["state"].eq("scored")
        & trials["n_attempts"].eq(1)
        & trials["first_score"].le(at_most)
        & _sound(trials, prompts)
    )
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in _ordered(trials[steered]):
        found[row["prompt"]].append((row["text"], f"{row['condition']}, {row['direction']}, trial {row['trial'][:12]}"))
    return found


def _splice(
    i: int,
    prompts: list[str],
    starts: dict[str, list[tuple[str, str]]],
    answers: dict[str, list[Example]],
    restarts: Sequence[str],
    seed: int,
) -> Example:
    turn, place = divmod(i, len(prompts))
    prompt = prompts[int(generator(seed, "fine-tuning prompts", turn).permutation(len(prompts))[place])]
    rng = generator(seed, "fine-tuning splice", i)

    def draw(options: Sequence[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    text, origin = draw(starts[prompt])
    answer: Example = draw(answers[prompt])
    start = text[: draw(cuts(text))].rstrip()
    before = draw(["\n\n", " "]) if "\n" in text + answer.text else " "
    after = draw(["\n\n", " "]) if "\n" in answer.text else " "
    return Example(
        prompt=prompt,
        segments=(
            Segment(text=start, train=False),
            Segment(text=f"{before}{draw(restarts)}{after}{answer.text.lstrip()}", train=True),
        ),
        source="constructed",
        ends=answer.ends,
        origin=f"off-topic: {origin}; answer: {answer.origin}",
    )


def cuts(text: str) -> list[int]:
    """Where a start may end: after each sentence in the first three quarters of the text, else after each word, else at
    the end of the text. Character positions."""
    for pattern in (_SENTENCE_END, _WORD_END):
        ends = [match.start() for match in pattern.finditer(text, 1)]
        early = [end for end in ends if end <= _LATEST_CUT * len(text) and text[:end].strip()]
        if early:
            return early
    return [len(text)]


def restart_list(name: str | None, folder: Path, spec: SubjectSpec) -> list[str]:
    """A study's restart phrases: the user's file, else the lexicon's (an organism knows no other words), else ours.

    Raises UserError for a file that is no list of phrases.
    """
    if name is not None:
        return read_prompts(folder / name)
    lexicon = spec.lexicon_path()
    phrases = Lexicon.load(lexicon).restart_phrases if lexicon is not None else ()
    return list(phrases) or read_prompts(Path(str(files("esr.finetuning") / "data" / "restarts.txt")))


def _sound(trials: pd.DataFrame, prompts: Collection[str]) -> pd.Series[bool]:
    """Trials to one of the prompts whose whole text is the subject's own, and did not collapse."""
    own = trials["prefix_tokens"].eq(0) & trials["text"].str.strip().ne("")
    return own & ~trials["degraded"].astype(bool) & trials["prompt"].isin(prompts)


def _ordered(trials: pd.DataFrame) -> list[dict[Any, Any]]:
    return trials.sort_values(["condition", "direction", "prompt_index", "seed", "trial"]).to_dict("records")


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples in a seeded order, every prompt's taken in turns, so that any number from the front covers the
    prompts evenly."""
    by_prompt: dict[str, list[Example]] = defaultdict(list)
    for i in generator(seed, "fine-tuning order").permutation(len(examples)):
        by_prompt[examples[i].prompt].append(examples[i])
    rank = [(turn, k) for k, own in enumerate(by_prompt.values()) for turn in range(len(own))]
    lists = list(by_prompt.values())
    return [lists[k][turn] for turn, k in sorted(rank)]
