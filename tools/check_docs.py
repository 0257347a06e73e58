"""Check the documentation against the tree: relative links resolve, and the README's file tree names what exists.
Run from the repository's root: python tools/check_docs.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    return [t for t in targets if "://" not in t and not (page.parent / t).exists()]


def missing_from_tree(readme: Path) -> list[str]:
    """Entries of the README's annotated tree (a ``text`` block that begins with ``src/esr/``) that do not exist."""
    text = readme.read_text(encoding="utf-8")
    match = re.search(r"^```text\n(src/esr/.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if match is None:
        return ["the tree itself"]
    missing = []
    for line in match.group(1).splitlines():
        name = line.split()[0] if line.strip() else ""
        path = Path(name) if name.startswith(("src/", "tests", "docs", "tools", "bench")) else Path("src/esr") / name
        if name and not path.exists():
            missing.append(name)
    return missing


def main() -> int:
    root = Path.cwd()
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    problems = [f"{page.name}: broken link {link}" for page in pages for link in broken_links(page)]
    problems += [f"README tree: {name} does not exist" for name in missing_from_tree(root / "README.md")]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
