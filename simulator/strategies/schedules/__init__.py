"""Pipeline schedules: in which order a pipeline rank runs its passes.

One file a schedule; each exports

* ``order(plan, rank)``: the passes of pipeline rank `rank`, in order;
* ``placement(plan)``: which pipeline rank owns each stage;
* ``refusal(plan)``: why it cannot schedule `plan` (what is allowed), or None;
* `SUMMARY`: the line that ``twinline strategies`` prints.
"""

from __future__ import annotations

from types import ModuleType

from simulator.strategies.schedules import gpipe, naive, one_f_one_b
from simulator.strategies.schedules.passes import Pass, Plan

SCHEDULES: dict[str, ModuleType] = {
    "naive": naive,
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
}

__all__ = ["SCHEDULES", "Pass", "Plan"]
