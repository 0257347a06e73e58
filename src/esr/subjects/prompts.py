"""Prompt sets: the bundled how-to questions, and a user's file with one prompt per line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from esr.errors import UserError


def how_to_prompts(held_out: bool = False) -> list[str]:
    """The 38 bundled how-to questions, or the 20 held-out ones, which share none with them."""
    name = "how_to_held_out.txt" if held_out else "how_to.txt"
    return read_prompts(Path(str(files("esr") / "subjects" / "data" / name)))


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a UTF-8 text file in order, one per line; blank lines and lines that begin with # are
    skipped.

    Raises UserError for a file that is missing, no text, empty, or has a prompt twice.
    """
    path = Path(path).expanduser()
    rule = "a file of prompts is readable UTF-8 text, one prompt per line"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(rule, f"{path}, which is not UTF-8", "Save it as plain text in UTF-8") from error
    except OSError as error:
        raise UserError(rule, f"{path} ({error.strerror})") from error
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        raise UserError(rule, f"{path}, which holds control characters", "Save it as plain text in UTF-8")
    prompts: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        prompt = line.strip()
        if not prompt or prompt.startswith("#"):
            continue
        if prompt in prompts:
            raise UserError(
                "each prompt of a file stands there once",
                f"{prompt!r} in lines {prompts[prompt]} and {number} of {path}",
                "Remove one",
            )
        prompts[prompt] = number
    if not prompts:
        raise UserError("a file of prompts holds at least one", f"none in {path}", "Write one prompt per line")
    return list(prompts)
