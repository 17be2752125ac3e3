"""The load of experts in a run, and how many tokens they dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from runtime.models.segment import Segment
from simulator.experiment.experiment import Experiment
from simulator.workloads.describe import describe


class ExpertLoadMeter:
    """Counts the tokens of each expert and those dropped; other models have no counters.

    Args:
        experiment: says how many experts there are.
        segments: whose mixtures of experts are counted on this rank.
    """

    def __init__(self, experiment: Experiment, segments: Iterable[Segment]):
        self._experiment = experiment
        self._counters = [pair for segment in segments for pair in segment.expert_counters]

    def restart(self) -> None:
        """Begin to count anew."""
        for _, counter in self._counters:
            counter.restart()

    def total(self) -> dict[str, Any] | None:
        """Return ``moe`` of ``twinline run`` (see ``docs/json.md``), summed over all ranks.

        None for models without experts. Every rank must call it.
        """
        if not self._experiment.workload.family.has_experts:
            return None
        shape = (len(describe(self._experiment)), self._experiment.workload.experts + 1)
        counts = torch.zeros(shape, dtype=torch.int64)
        for layer, counter in self._counters:
            counts[layer, :-1] += counter.load.cpu()
            counts[layer, -1] += counter.dropped.cpu()
        dist.all_reduce(counts)
        blocks = [row[:-1] for row in counts.tolist() if any(row)]
        *load, dropped = counts.sum(0).tolist()
        return {
            "dropped_share": dropped / sum(load),
            "load": _shares(load),
            "load_of_blocks": [_shares(block) for block in blocks],
        }


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts]
