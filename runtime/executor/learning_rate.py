"""The learning rate of one rank's updates, over all iterations of its program."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from simulator.experiment.experiment import Experiment
from simulator.experiment.learning_rate import scaled_learning_rate, share_at


class LearningRate:
    """The learning rate of every training step; the same on all ranks.

    Where a schedule follows the loss, torch's `ReduceLROnPlateau` says what becomes of it. The loss
    is that of all ranks, which they know between iterations.

    Args:
        experiment: has the schedule.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._run, self._iterations = experiment.run, 0
        self._whole = scaled_learning_rate(experiment)
        self._plateau = Plateau(experiment) if _follows_the_loss(experiment) else None

    def begin(self) -> None:
        """Begin the next iteration."""
        self._iterations += 1

    def at(self, step: int) -> float:
        """Return the learning rate of a training step of this iteration."""
        first = max(self._iterations - 1, 0) * self._run.horizon
        share = share_at(self._run, first + step)
        return self._whole * share * (1.0 if self._plateau is None else self._plateau.share)

    def look(self, losses: Sequence[float]) -> None:
        """Take note of the losses of an iteration at its end: means over all ranks, by step."""
        if self._plateau is not None:
            self._plateau.look(losses)


class Plateau:
    """The share of the learning rate that is left, as losses stall.

    Attributes:
        share: 1 in the beginning.
    """

    def __init__(self, experiment: Experiment) -> None:
        run = experiment.run
        self._period, self._kept = run.plateau_period or 1, list[float]()
        self._looks = 0
        self._rate = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._scheduler = ReduceLROnPlateau(
            self._rate,
            factor=0.1 if run.plateau_factor is None else run.plateau_factor,
            patience=10 if run.plateau_patience is None else run.plateau_patience,
            min_lr=run.learning_rate_floor or 0.0,
        )
        self.share = 1.0

    def look(self, losses: Sequence[float]) -> None:
        """Keep the losses of an iteration; once a period, look at the mean of all that are kept."""
        self._kept += losses
        self._looks += 1
        if self._looks % self._period == 0:
            self._scheduler.step(sum(self._kept) / len(self._kept))
            self._kept.clear()
            self.share = float(self._rate.param_groups[0]["lr"])


def _follows_the_loss(experiment: Experiment) -> bool:
    return experiment.run.learning_rate_schedule == "plateau"
