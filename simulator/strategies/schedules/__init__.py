"""Pipeline schedules: in which order a pipeline rank runs its passes.

One file a schedule; each exports ``order(num_stages, rank, num_microbatches)`` and the
one-line `SUMMARY` that ``twinline strategies`` prints.
"""

from __future__ import annotations

from types import ModuleType

from simulator.strategies.schedules import gpipe, naive, one_f_one_b
from simulator.strategies.schedules.passes import Pass

SCHEDULES: dict[str, ModuleType] = {
    "naive": naive,
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
}

__all__ = ["SCHEDULES", "Pass"]
