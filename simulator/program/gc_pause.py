"""A pause of garbage collection, for the time in which many long-lived objects are made.

A program is up to millions of objects without cycles; every full collection would walk
them all for nothing, which costs more than making them.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """Stop cyclic garbage collection inside the ``with`` block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
