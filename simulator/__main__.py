"""``python -m simulator``."""

from simulator.cli.commands import main

main()
