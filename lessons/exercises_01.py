"""Exercises of lesson 1. Replace every ``raise``, then: ``python -m lessons.check 01``."""


def all_reduce_seconds(ranks: int, nbytes: float, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce of `nbytes` (bytes/s, seconds).

    Target: 8 ranks, 1e9 bytes, 360e9 bytes/s, 3e-6 s take 4.90 ms.
    """
    raise NotImplementedError


def bucket_mb() -> float:
    """A bucket size in MB with which 256 H100s, one sequence each, need at most 82 ms a step.

    Try some: twinline predict with your own TOML file, or predict(parse({…})) as in the
    lesson with "data": 256, "global_batch": 256 and
    "cluster": {"preset": "dgx-h100", "algorithm": "ring"}.
    """
    raise NotImplementedError


def microbatches() -> int:
    """The smallest number of microbatches a step with a speed-up of 12 on 16 GPUs.

    Four sequences a microbatch, buckets of 100 MB, "algorithm": "ring",
    "node_bandwidth_gbit": 100.0. The
    global batch is 16 × microbatches × 4.
    """
    raise NotImplementedError
