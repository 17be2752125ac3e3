"""Exercises of lesson 5. Replace every ``raise``, then: ``python -m lessons.check 05``."""


def step_seconds(
    period: int, compute: float, ranks: int, nbytes: float, bandwidth: float, latency: float
) -> float:
    """Seconds of a step, the mean over a period of local steps (seconds, bytes, bytes/s).

    Target: 16 steps of 0.656 s, 4 ranks, 652e6 bytes, 120e6 bytes/s, 100e-6 s take 1.17 s each.
    """
    raise NotImplementedError


def plan() -> dict[str, object]:
    """A plan, {"fragments": …, "overlap_steps": …}, with a speed-up of 3.45 on four machines.

    ``predict(lesson_tools.on_slow_network(keys))`` predicts it, with "data_style": "diloco",
    "sync_period": 16 and yours as keys, and ``lesson_tools.speed_up`` of that is the speed-up.
    At most 3 overlap_steps. A fragment has whole buckets; "bucket_mb", 100.0 there, may be in
    the plan, too.
    """
    raise NotImplementedError


def neighbour(step: int, rank: int, ranks: int) -> int:
    """The rank whose parameters `rank` takes in a step (both counted from 0).

    A replica becomes half of itself and half of that one. In a step each gives to exactly one.
    Target: 8 replicas that do not train have the exact mean after steps 0, 1 and 2, and 2^k
    replicas after k steps.
    """
    raise NotImplementedError
