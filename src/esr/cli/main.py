"""Entry point. Importing the command modules registers their commands; exit codes stand in ``esr --help``."""

from __future__ import annotations

import os
import sys

from esr.cli import exchange, finetune, judges, lists, new, organism, show, studies, vectors  # noqa: F401
from esr.cli.app import app, fail
from esr.errors import SteeringError, UserError


def main() -> None:
    """The ``esr`` command. Always raises SystemExit."""
    if not sys.stderr.isatty():  # libraries' bars of downloads and the like are for people who watch
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(standalone_mode=True)
    except UserError as error:
        fail(str(error), 2)
    except SteeringError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:  # older versions of typer let it through
        sys.exit(130)
