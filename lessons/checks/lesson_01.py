"""The exercises of lesson 1, data parallel, are checked against the simulator."""

from __future__ import annotations

from types import ModuleType

from lessons import lesson_tools
from lessons.checks.tools import H100, expect, milliseconds, near, simulated, smallest
from twinline import Op, ring_seconds

RINGS = H100 | {"algorithm": "ring"}
"""The cluster that the lesson has a formula for."""


def all_reduce_formula(answers: ModuleType) -> str:
    for ranks, size, bandwidth, latency in (
        (2, 1e6, 1e9, 1e-4),
        (8, 1e9, 360e9, 3e-6),
        (64, 8.0, 1e10, 6e-6),
    ):
        value = answers.all_reduce_seconds(ranks, size, bandwidth, latency)
        target = ring_seconds(Op.ALL_REDUCE, ranks, size, latency, bandwidth)
        expect(
            near(value, target),
            f"{ranks} ranks, {size:g} bytes, {bandwidth:g} bytes/s, {latency:g} s: {value!r}, "
            f"expected {target:.6g}",
        )
    return "1 GB over 8 ranks: 4.90 ms"


def bucket_size(answers: ModuleType) -> str:
    size = float(answers.bucket_mb())
    workload = lesson_tools.GPT_1B | {"global_batch": 256}
    prediction = simulated(workload, RINGS, data=256, bucket_mb=size)
    time = milliseconds(prediction)
    count = len(lesson_tools.buckets(prediction.program))
    result = f"{size:g} MB: {count} buckets, {time:.1f} ms"
    side = "the latency is paid too often" if count > 20 else "too little is left to overlap"
    expect(time <= 82, f"{result}; the target is 82 ms: {side}")
    return result


def accumulation(answers: ModuleType) -> str:
    def speedup(microbatches: int) -> float:
        workload = lesson_tools.GPT_1B | {"global_batch": 16 * 4 * microbatches}
        cluster = RINGS | {"node_bandwidth_gbit": 100.0}
        plan = {"data": 16, "microbatches": microbatches, "bucket_mb": 100.0}
        prediction = simulated(workload, cluster, **plan)
        compute = lesson_tools.work_seconds(prediction)[0]
        return 16 * compute / prediction.iteration_time_s

    return smallest(answers.microbatches(), lambda m: speedup(m) >= 12, "a speed-up of 12")
