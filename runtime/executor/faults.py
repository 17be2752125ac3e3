"""Faults on purpose, for tests: a rank that fails, hangs, is slow or comes late."""

from __future__ import annotations

import os
import time


def inject(kind: str) -> None:
    """Fail on purpose: ``exit`` (the process is gone), ``hang``, ``raise``; or, as
    ``delay:SECONDS``, come later. What `linger` knows does nothing here.
    """
    word, _, amount = kind.partition(":")
    if word == "exit":
        os._exit(17)
    if word == "hang":
        time.sleep(86400)
    if word == "delay":
        time.sleep(float(amount))
    elif word != "slow":
        raise RuntimeError("injected fault")


def linger(kind: str, begin: float) -> float:
    """Take longer on purpose: ``slow:FACTOR``, after what began then; the time it is over."""
    word, _, amount = kind.partition(":")
    if word == "slow":
        time.sleep((float(amount) - 1.0) * (time.perf_counter() - begin))
    return time.perf_counter()
