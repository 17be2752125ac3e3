"""A rank of torchrun that takes itself to be on another host, for tests on one machine.

``python torchrun_host.py FLAGS…`` is ``python -m runtime FLAGS…`` with a boot, a name and a
monotonic clock that only the ranks of one host share; RANK and LOCAL_WORLD_SIZE say which.
"""

from __future__ import annotations

import os
import socket
import time

HOST = int(os.environ["RANK"]) // int(os.environ["LOCAL_WORLD_SIZE"])
APART_S = 1000.0
"""So much later than that of the host before does the clock of a host begin."""


def main() -> None:
    own = time.perf_counter
    time.perf_counter = lambda: own() - APART_S * HOST
    socket.gethostname = lambda: f"host{HOST}"
    from runtime.measurement import clock

    clock.host_name = lambda: f"host{HOST} boot{HOST}"
    from runtime.__main__ import main as command

    command()


if __name__ == "__main__":
    main()
