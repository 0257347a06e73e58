"""Entry point. Importing the command modules registers their commands.

Exit codes: 0 done; 1 steering failed or broke the model; 2 a mistake the message explains; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from esr.cli import exchange, finetune, judges, lists, new, organism, studies, vectors  # noqa: F401
from esr.cli.app import app, fail
from esr.errors import SteeringError, UserError


def main() -> None:
    """The ``esr`` command."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        fail(str(error), 2)
    except SteeringError as error:
        fail(str(error), 1)
