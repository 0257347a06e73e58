"""What a page of the report may do: show its own styles, run its own scripts, and nothing else.

The page carries untrusted text (prompts, responses, labels), so its content security policy names the SHA-256 of each
style and script that belongs to it. Whatever else gets into the page, as an element, an attribute or through the DOM,
is neither run nor loaded: no inline handlers, no ``style`` attributes, no network, no frames, no forms, and with
trusted types no string that becomes markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Inline:
    """The styles and scripts of a page, in order. Raises ValueError for one that would end its own element."""

    styles: Sequence[str]
    scripts: Sequence[str]

    def __post_init__(self) -> None:
        for text in (*self.styles, *self.scripts):
            if any(sign in text.lower() for sign in ("</style", "</script", "<!--", "\r")):
                raise ValueError("a style or script holds an end tag, a comment of HTML or a carriage return")

    @property
    def policy(self) -> str:
        """For ``<meta http-equiv="Content-Security-Policy">``."""
        return "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hashes(self.scripts)}",
                f"style-src {_hashes(self.styles)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        )

    @property
    def style_elements(self) -> Markup:
        """All styles, for the head of the page."""
        return Markup("\n").join(Markup(f"<style>{text}</style>") for text in self.styles)

    @property
    def script_elements(self) -> Markup:
        """All scripts."""
        return Markup("\n").join(Markup(f"<script>{text}</script>") for text in self.scripts)


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
