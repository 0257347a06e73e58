"""Check the built site: no page fetches anything from another host when it is read, and none refers to a file that is
not there. Links a reader may follow are no fetches.
Run from the repository's root, after `zensical build`: python tools/check_site.py site
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHING = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href",
}  # fmt: skip
PASSIVE = {"canonical", "next", "prev", "alternate"}
"""Relations of a ``link`` that a browser does not load."""
STYLE_FETCH = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)")


class Fetches(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and (values.get("rel") or "") in PASSIVE:
            return
        if target := values.get(FETCHING.get(tag, "")):
            self.found.append(target)


def problems(site: Path) -> list[str]:
    """One line each."""
    found = []
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        parser = Fetches()
        parser.feed(page.read_text(encoding="utf-8"))
        for target in parser.found:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            if parts.netloc:
                found.append(f"{page.relative_to(site)} loads {target}")
                continue
            base = site if parts.path.startswith("/") else page.parent
            if not (base / unquote(parts.path).lstrip("/")).exists():
                found.append(f"{page.relative_to(site)} refers to {target}, which is not there")
    for style in [*site.rglob("*.css"), *pages]:
        found += [f"{style.relative_to(site)} loads {url}" for url in STYLE_FETCH.findall(style.read_text("utf-8"))]
    return found if pages else [f"{site} holds no page"]


def main(site: str) -> int:
    found = problems(Path(site))
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
