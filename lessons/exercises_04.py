"""Exercises of lesson 4. Replace every ``raise``, then: ``python -m lessons.check 04``."""


def slowest(workers: int, spread: float, backup: int) -> float:
    """The mean time of the last worker that is waited for, in units of the mean of all.

    Times are shifted exponential: 1 − spread, then a delay of mean `spread`. Of the workers
    all but `backup` are waited for. Target: 16 workers, 0.5, 2 backup workers: 1.44.
    """
    raise NotImplementedError


def staleness(step_seconds: list[float]) -> list[float]:
    """The mean staleness of each asynchronous worker, in updates.

    Target: workers whose steps take 1, 1, 1 and 3 seconds: 2.33, 2.33, 2.33 and 9.
    """
    raise NotImplementedError


def gradients_per_update() -> int:
    """The number of gradients in an update of sixteen workers with jitter.

    ``uneven_machines.on_machines(plan, spread=0.5)`` is the experiment, with a plan of
    {"data_style": "soft-synchronous", "gradients_per_update": …}. Predict it; then
    ``uneven_machines.batch_seconds`` and ``uneven_machines.mean_staleness`` have the figures.
    The gradients of 16 steps in at most 1.15 × t, t being 231 ms, and a mean staleness of at
    most 3.
    """
    raise NotImplementedError
