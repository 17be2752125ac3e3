"""The command behind ``torchrun --nproc-per-node N -m runtime FILE.toml``.

What it does is in `runtime.torchrun`, which is imported here, so that Ctrl-C in the meantime is
quiet: importing torch takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys

from runtime import gpu_environment


def main() -> None:
    """Run the experiment on the ranks that torchrun started; Ctrl-C while it loads is one line."""
    os.environ.update(gpu_environment.missing())
    try:
        from runtime.torchrun import app

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun, which is interrupted too, says so
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # each host says it once
            print("twinline: interrupted", file=sys.stderr)
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
