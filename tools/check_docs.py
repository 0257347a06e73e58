"""Check the documentation against the tree: links lead somewhere, every page is in the site's navigation, and the
README's file tree names what exists. What pages say about the code is checked in tests/docs; the site by `make docs`.
Run from the repository's root: python tools/check_docs.py
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?[^)]*\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
GENERATED = ("notebooks/",)
"""Pages that `make docs` makes; only it can tell whether they are there."""


def slug(heading: str) -> str:
    """The anchor the site gives a heading."""
    text = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {f"#{slug(heading)}" for heading in re.findall(r"^#+ (.+?)(?: \{.*\})?$", text, re.MULTILINE)}


def broken_links(page: Path, docs: Path) -> list[str]:
    """Relative links of a page that lead nowhere; of a page of the site also those that leave it."""
    broken = []
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith(("mailto:", *GENERATED)):
            continue
        path = page.parent / target if target else page
        outside = page.is_relative_to(docs) and not path.resolve().is_relative_to(docs.resolve())
        if not path.exists() or outside or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target + anchor)
    return broken


def navigation(entries: list[Any]) -> list[str]:
    """The pages a navigation names, in its order."""
    pages = []
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            pages += [value] if isinstance(value, str) else navigation(value)
    return pages


def navigation_problems(config: Path, docs: Path) -> list[str]:
    """Pages that are not in the navigation, and entries of it without a page."""
    named = navigation(tomllib.loads(config.read_text(encoding="utf-8"))["project"]["nav"])
    named = [page for page in named if not page.startswith(GENERATED)]
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md") if not path.is_relative_to(docs / "notebooks")}
    return [f"{page} is not in the navigation" for page in sorted(there - set(named))] + [
        f"the navigation names {page}, which does not exist" for page in named if page not in there
    ]


def missing_from_tree(readme: Path) -> list[str]:
    """Entries of the README's annotated tree (a ``text`` block that begins with ``src/esr/``) that do not exist."""
    text = readme.read_text(encoding="utf-8")
    match = re.search(r"^```text\n(src/esr/.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if match is None:
        return ["the tree itself"]
    missing = []
    for line in match.group(1).splitlines():
        name = line.split()[0] if line.strip() else ""
        outside = name.startswith(("src/", "tests", "docs", "tools", "bench", "notebooks"))
        path = Path(name) if outside else Path("src/esr") / name
        if name and not path.exists():
            missing.append(name)
    return missing


def problems(root: Path) -> list[str]:
    """Everything that is wrong, one line each."""
    docs = root / "docs"
    pages = [*sorted(root.glob("*.md")), *sorted(p for p in docs.rglob("*.md") if "notebooks" not in p.parts)]
    found = [f"{page.relative_to(root)}: broken link {link}" for page in pages for link in broken_links(page, docs)]
    found += [f"zensical.toml: {problem}" for problem in navigation_problems(root / "zensical.toml", docs)]
    return found + [f"README tree: {name} does not exist" for name in missing_from_tree(root / "README.md")]


def main() -> int:
    found = problems(Path.cwd())
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
