"""Exercises of lesson 1. Replace every ``raise``, then: ``python -m lessons.check 01``."""


def all_reduce_seconds(ranks: int, nbytes: float, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce of `nbytes` (bytes/s, seconds).

    Target: 8 ranks, 1e9 bytes, 360e9 bytes/s, 3e-6 s take 4.90 ms.
    """
    raise NotImplementedError


def bucket_mb() -> float:
    """A bucket size in MB with which 256 H100s, one sequence each, need at most 82 ms a step.

    The model is lesson_tools.GPT_1B. Try some sizes as in the lesson, with "data": 256,
    "global_batch": 256 and "cluster": {"preset": "dgx-h100", "algorithm": "ring"}. A bucket
    is never smaller than a layer.
    """
    raise NotImplementedError


def microbatches() -> int:
    """The smallest number of microbatches a step with a speed-up of 12 on 16 GPUs.

    The model is lesson_tools.GPT_1B, with four sequences a microbatch, so the global batch is
    16 × microbatches × 4. Buckets of 100 MB; "preset": "dgx-h100", "algorithm": "ring",
    "node_bandwidth_gbit": 100.0. The speed-up is 16 × T_compute ÷ T_step, with T_compute from
    lesson_tools.work_seconds(prediction)[0].
    """
    raise NotImplementedError
