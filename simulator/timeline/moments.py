"""The order of what is taken and given back at moments that rounding has moved apart."""

from __future__ import annotations

import numpy as np

from simulator.program.columns import Integers
from simulator.timeline.timeline import Floats

ROUNDING = 1e-12
"""The share of the whole time by which moments that are the same may be apart."""


def in_order(times: Floats, changes: Floats | Integers) -> tuple[Integers, Floats]:
    """Return the order in which changes happen, and the moments at which they do.

    At times that are equal but for rounding, what is given back comes before what is taken.

    Args:
        times: seconds, from 0 on.
        changes: what is taken at each; what is given back is negative.
    """
    order = np.argsort(times, kind="stable")
    begins = np.diff(times[order], prepend=-1.0) > ROUNDING * times.max(initial=0.0)
    moment = np.cumsum(begins)
    at = times[order][begins][moment - 1]
    return order[np.lexsort((changes[order], moment))], at
