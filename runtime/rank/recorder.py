"""The recorder of one rank's steps: their times, memory and losses."""

from __future__ import annotations

import torch
import torch.distributed as dist

from runtime.executor.context import Batches
from runtime.executor.devices import AllocatorPeak
from runtime.executor.list_executor import ListExecutor
from runtime.measurement.clock import Clock
from runtime.measurement.merge import Allocated, RankRecord


class StepRecorder:
    """Runs steps of one rank and records them; every rank must make the same calls together.

    Attributes:
        record: times and memory of the steps that were kept.
        losses: of the training steps in them, the mean over the whole batch.
    """

    def __init__(self, executor: ListExecutor, clock: Clock):
        self._executor, self._clock = executor, clock
        resident = executor.context.ledger.resident
        self.record = RankRecord([], [], [], resident)
        self.losses: list[float] = []
        self._allocator = AllocatorPeak(executor.rank.device, sum(resident))

    def step(self, batches: Batches, keep: bool) -> None:
        """Run a step that begins on all ranks at once.

        Args:
            batches: see `ListExecutor.step`.
            keep: record it; a step to get warm is not.
        """
        executor, context = self._executor, self._executor.context
        context.batches = batches  # the step before gives its own back before bytes are counted
        self._allocator.restart()
        self._clock.synchronize()
        origin = self._clock.common_start()
        executor.step(batches)
        peak, losses = self._allocator.nbytes(), self._mean_losses()
        context.learning_rate.look(losses)
        receptions = context.receptions.values()
        met = [decision for one in receptions for decision in one.acceptance.decisions]
        self.record.decisions.append(met)
        if not keep:
            return
        shift = self._clock.offset - origin
        record, changes = self.record, context.ledger.changes
        record.posted.append([time + shift for time in executor.posted])
        record.end.append([time + shift for time in executor.end])
        posted, end = record.posted[-1], record.end[-1]
        record.memory.append(
            [
                ((end if at_end else posted)[index], change, name)
                for index, at_end, change, name in changes
            ]
        )
        record.allocated += [] if peak is None else [Allocated(*peak)]
        self.losses += losses

    def _mean_losses(self) -> list[float]:
        """Return the loss of every training step, the same on every rank."""
        rank = self._executor.rank
        parallel = rank.experiment.parallel
        terms = parallel.batch_shares * parallel.context * parallel.microbatches
        total = torch.zeros(rank.program.horizon, dtype=torch.float64)
        if rank.coordinate["tensor"] == 0:  # tensor-parallel ranks compute the same loss
            for step, loss in self._executor.context.losses:
                total[step] += loss.double().cpu() / terms
        dist.all_reduce(total)
        return total.tolist()
