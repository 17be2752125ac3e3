"""The microbatches of one rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from runtime.executor.context import Batches
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from simulator.program.batch import Batch


def batches_of(rank: Rank, iteration: int) -> Batches:
    """Return the microbatches of a rank's replica in all steps of an iteration.

    Ranks without passes have none; those that are handed out microbatches may get any.
    """
    experiment = rank.experiment
    if not rank.trains:
        return {}
    horizon, numbers = experiment.run.horizon, experiment.microbatches_of(rank.number)
    return {
        (step, i): microbatch(experiment, iteration * horizon + step, number, rank.device)
        for step in range(horizon)
        for i, number in enumerate(numbers)
    }


class BatchesOnDemand(Mapping[Batch, tuple[Tensor, Tensor]]):
    """The microbatches of a rank in an iteration, made when they are asked for.

    Args:
        rank: whose replica they are of.
        iteration: counted from 0.
    """

    def __init__(self, rank: Rank, iteration: int) -> None:
        self._experiment, self._device = rank.experiment, rank.device
        self._numbers = rank.experiment.microbatches_of(rank.number) if rank.trains else range(0)
        self._horizon = rank.experiment.run.horizon
        self._step = iteration * self._horizon
        self._newest: tuple[Batch, tuple[Tensor, Tensor]] | None = None

    def __getitem__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self._newest is None or self._newest[0] != batch:  # stages of a rank ask again
            step, index = batch
            number = self._numbers[index]
            made = microbatch(self._experiment, self._step + step, number, self._device)
            self._newest = batch, made
        return self._newest[1]

    def __iter__(self) -> Iterator[Batch]:
        return ((step, i) for step in range(self._horizon) for i in range(len(self._numbers)))

    def __len__(self) -> int:
        return self._horizon * len(self._numbers)
