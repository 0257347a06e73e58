"""The notebooks: run them, or make pages of the site from them.

Run from the repository's root:
    python tools/notebooks.py --run              each in a scratch folder; a cell that fails ends it
    python tools/notebooks.py --run --write      and store what came out in the notebooks
    python tools/notebooks.py --pages FOLDER     Markdown with the stored outputs, nothing is run
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import MarkdownExporter

SECONDS = 300
"""Most that one cell may take."""

STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)
"""Of pandas, with every table: the site has its own."""


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with what its cells gave, run in a folder of its own. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def write_page(path: Path, folder: Path) -> None:
    """A notebook as a Markdown page, its figures beside it."""
    text, resources = MarkdownExporter().from_filename(
        str(path), resources={"unique_key": path.stem, "output_files_dir": path.stem}
    )
    text = STYLE.sub("", text).replace('<table border="1" class="dataframe">', "<table>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{path.stem}.md").write_text(text, encoding="utf-8")
    for name, data in resources["outputs"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--pages", type=Path, metavar="FOLDER")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of a model this small wait for each other
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress"  # tqdm misses ipywidgets, which pages cannot show anyway
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        if asked.run:
            begun = time.monotonic()
            try:
                notebook = execute(path)
            except CellExecutionError as error:
                print(f"{path}:\n{error}")
                return 1
            print(f"{path}: {time.monotonic() - begun:.0f} s", flush=True)
            if asked.write:
                nbformat.write(notebook, path)
        if asked.pages:
            write_page(path, asked.pages)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
