"""What the mixtures of experts of a run have counted: the load of experts, and drops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from runtime.models import Segment
from runtime.models.moe_gpt import Dispatch
from simulator.experiment import Experiment


class Routing:
    """The counters of the segments of a rank. Without experts there are none."""

    def __init__(self, experiment: Experiment, segments: Iterable[Segment], device: torch.device):
        self._experts = experiment.workload.experts
        self._counts_any = experiment.workload.model == "moe-gpt"
        self._device = device
        self._counters = [
            module
            for segment in segments
            for module in segment.modules()
            if isinstance(module, Dispatch)
        ]

    def restart(self) -> None:
        """Count from here."""
        for counter in self._counters:
            counter.restart()

    def total(self) -> dict[str, Any] | None:
        """``moe`` of ``twinline run`` (see ``docs/json.md``), over all blocks and ranks; None
        for models without experts. Every rank must call it."""
        if not self._counts_any:
            return None
        counts = torch.zeros(self._experts + 1, dtype=torch.int64, device=self._device)
        for counter in self._counters:
            counts[:-1] += counter.load
            counts[-1] += counter.dropped
        dist.all_reduce(counts)
        *load, dropped = counts.tolist()
        choices = sum(load)
        return {"dropped_share": dropped / choices, "load": [each / choices for each in load]}
