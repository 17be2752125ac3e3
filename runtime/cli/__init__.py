"""The command line ``twinline``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name (the entry point of the script ``twinline``).

    The commands are imported here, so that Ctrl-C in the meantime is quiet.
    """
    try:
        from runtime.cli.app import app

        app()
    except KeyboardInterrupt:
        print("twinline: interrupted", file=sys.stderr)
        sys.exit(130)
