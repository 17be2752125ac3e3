"""The command line ``python -m simulator``."""

from simulator.cli.app import app

app()
