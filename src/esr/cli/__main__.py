"""``python -m esr.cli``."""

from esr.cli.main import main

main()
