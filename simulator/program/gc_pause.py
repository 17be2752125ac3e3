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
    """Stop cyclic garbage collection inside the ``with`` block.

    What was made there is old at its end, so that the next collection does not walk it, either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if gc.get_freeze_count() == 0:  # what others have frozen stays frozen
                gc.freeze()  # both only move lists of objects
                gc.unfreeze()
            gc.enable()
