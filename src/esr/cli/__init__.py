"""How a person calls it: the commands parse and call; the library computes."""

from esr.cli.main import main

__all__ = ["main"]
