"""Learning rates by torch's own schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from simulator.experiment.experiment import Experiment

FACTORS: dict[str, Callable[[int], float]] = {
    "none": lambda workers: 1.0,
    "linear": float,
    "sqrt": lambda workers: workers**0.5,
}


def stepper(optimizer: Optimizer, experiment: Experiment) -> Callable[[float], None]:
    """Scale the rate of `optimizer` for many workers; return what is called with the mean loss
    after each training step, in iterations of one step."""
    run = experiment.run
    factor = FACTORS[run.learning_rate_scaling](experiment.parallel.batch_shares)
    for group in optimizer.param_groups:
        group["lr"] *= factor
    if run.learning_rate_schedule == "plateau":
        return _on_plateaus(optimizer, experiment)
    scheduler = _of_steps(optimizer, experiment)

    def step(loss: float) -> None:
        scheduler.step()

    return step


def _of_steps(optimizer: Optimizer, experiment: Experiment) -> LRScheduler:
    run, (group,) = experiment.run, optimizer.param_groups
    floor, warmup = run.learning_rate_floor or 0.0, run.learning_rate_warmup
    rate = group["lr"]

    def after_warmup() -> LRScheduler:
        if run.learning_rate_schedule == "linear":
            assert run.learning_rate_decay is not None
            return LinearLR(optimizer, 1.0, floor, total_iters=run.learning_rate_decay)
        if run.learning_rate_schedule == "cosine":
            assert run.learning_rate_decay is not None
            return CosineAnnealingLR(optimizer, run.learning_rate_decay, eta_min=floor * rate)
        return ConstantLR(optimizer, 1.0)

    if not warmup:
        return after_warmup()
    rise: Any = LinearLR(optimizer, 1 / warmup, 1.0, total_iters=max(warmup - 1, 1))
    return SequentialLR(optimizer, [rise, after_warmup()], milestones=[warmup])


def _on_plateaus(optimizer: Optimizer, experiment: Experiment) -> Callable[[float], None]:
    run = experiment.run
    (group,) = optimizer.param_groups
    assert not run.learning_rate_warmup
    scheduler = ReduceLROnPlateau(
        optimizer,
        factor=run.plateau_factor or 0.1,
        patience=10 if run.plateau_patience is None else run.plateau_patience,
        min_lr=(run.learning_rate_floor or 0.0) * group["lr"],
    )
    kept: list[float] = []

    def step(loss: float) -> None:
        kept.append(loss)
        if len(kept) == (run.plateau_period or 1):
            scheduler.step(sum(kept) / len(kept))
            kept.clear()

    return step
