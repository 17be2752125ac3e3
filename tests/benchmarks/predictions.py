"""How long predictions take, beside a bare event loop of the same passes.

    python tests/benchmarks/predictions.py [--runs N] [NAME ...]

Rows whose name contains one of the given texts are run; without any, all. Every figure is
processor time of this process, the median of the runs. The yardstick is the least that follows
a pipeline event by event: a heap of the ends of passes, with no messages, memory or figures.
Rows of the model ``unit`` have the same passes as the yardstick; for other rows it says how fast
the machine is.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections.abc import Callable
from typing import Any

from simulator import Experiment, parse, predict
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.cluster.timing import Timing
from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass, Plan
from simulator.strategies.schedules.registry import SCHEDULES

GPT = {
    "model": "gpt", "layers": 32, "hidden": 4096, "heads": 32, "sequence": 4096, "vocab": 131072,
    "dtype": "bf16", "optimizer": "adam", "attention": "flash",
}  # fmt: skip
GPT3 = GPT | {
    "layers": 96, "hidden": 12288, "heads": 96, "sequence": 2048, "vocab": 51200,
    "attention": "unfused",
}  # fmt: skip
TRILLION = GPT3 | {"layers": 128, "hidden": 25600, "heads": 160}
UNIT = {"model": "unit", "forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0, "p2p": 0.1}
SEQUENCE = {"sequence_parallel": True}
MLP = {"model": "mlp", "layers": 4, "hidden": 256}

PLANS: dict[str, tuple[dict[str, Any], int, int, dict[str, Any]]] = {
    "unit 1F1B, 16 stages × 256": (UNIT, 256, 2, {"pipeline": 16, "microbatches": 256}),
    "unit 1F1B, 64 stages × 4096": (UNIT, 4096, 8, {"pipeline": 64, "microbatches": 4096}),
    "unit interleaved, 64 ranks × 4 × 512": (
        UNIT, 512, 8,
        {"pipeline": 64, "microbatches": 512, "virtual_stages": 4, "schedule": "interleaved-1f1b"},
    ),
    "data 8, ZeRO 1": (GPT, 64, 1, {"data": 8, "zero": 1, "microbatches": 8}),
    "data 8, ZeRO 3": (GPT, 64, 1, {"data": 8, "zero": 3, "microbatches": 8}),
    "tensor 8": (GPT, 32, 1, SEQUENCE | {"tensor": 8, "microbatches": 32}),
    "data 2 × tensor 2 × pipeline 2": (
        GPT, 128, 1, SEQUENCE | {"data": 2, "tensor": 2, "pipeline": 2, "microbatches": 64},
    ),
    "data 8 × tensor 4 × pipeline 2": (
        GPT, 128, 8, SEQUENCE | {"data": 8, "tensor": 4, "pipeline": 2, "microbatches": 16},
    ),
    "data 16 × tensor 2 × pipeline 6": (
        GPT | {"layers": 30}, 512, 24,
        SEQUENCE | {"data": 16, "tensor": 2, "pipeline": 6, "microbatches": 32},
    ),
    "GPT-3, 512 ranks": (
        GPT3, 512, 64,
        SEQUENCE
        | {"tensor": 8, "pipeline": 8, "data": 8, "microbatches": 64, "recompute": "selective"}
        | {"virtual_stages": 3, "schedule": "interleaved-1f1b"},
    ),
    "one trillion, 3072 ranks": (
        TRILLION, 3072, 384,
        SEQUENCE
        | {"tensor": 8, "pipeline": 64, "data": 6, "microbatches": 512, "recompute": "selective"},
    ),
    "data 65,536": (GPT, 65536, 8192, {"data": 65536}),
    "64 asynchronous workers × 100 steps": (
        MLP, 64, 9, {"data": 64, "data_style": "asynchronous"},
    ),
    "64 replicas × 100 steps, gossip on a ring": (
        MLP, 64, 8, {"data": 64, "data_style": "gossip", "topology": "ring"},
    ),
    "64 replicas × 100 steps, one-peer gossip": (
        MLP, 64, 8, {"data": 64, "data_style": "gossip", "topology": "one-peer-exponential"},
    ),
    "64 replicas × 100 steps, gossip on a torus": (
        MLP, 64, 8, {"data": 64, "data_style": "gossip", "topology": "torus"},
    ),
    "calibrated, pipeline 4": (
        {"model": "mlp", "layers": 8}, 64, 1, {"pipeline": 4, "microbatches": 16},
    ),
    "calibrated, data 2 × pipeline 2": (
        {"model": "mlp", "layers": 8}, 64, 1, {"data": 2, "pipeline": 2, "microbatches": 8},
    ),
}  # fmt: skip
"""Each row has its workload, global batch, number of DGX H100 nodes, and degrees.

Rows that are calibrated are for `calibrated`, not for DGX nodes. Ranks of rows of many steps are of
uneven speed, drawn for each step.
"""

STEPS = 100
UNEVEN = {"jitter": "lognormal", "jitter_spread": 0.3}
"""The horizon of rows of many steps, and the speeds of their ranks."""


def calibrated() -> Profile:
    """Return a profile of two cores on which every duration has a spread, so many steps count."""

    def spread(seconds: float) -> Timing:
        return Timing.of([seconds * (1.0 + 0.1 * (number % 5)) for number in range(50)])

    sizes = [(1000, spread(1e-4)), (1000000, spread(1e-3))]
    return Profile(
        machine={"cores": 2, "hostname": "two cores", "torch": ""},
        device="cpu",
        passes={},
        messages=sizes,
        collectives={Op.ALL_REDUCE: {2: sizes, 4: sizes}},
        issue_s=1e-5,
        wake_s=2e-5,
        transfer_cores=0.5,
        transfer_loss=0.25,
        busy_ranks=4,
        peak_flops={"fp32": 1e11},
        rounds=[[1.0, 1.1], [1.05, 1.0]],
    )


def experiment_of(name: str) -> Experiment:
    """Return the plan of a row."""
    workload, global_batch, nodes, parallel = PLANS[name]
    if workload["model"] != "unit":
        workload = workload | {"global_batch": global_batch}
    preset = {} if name.startswith("calibrated") else {"preset": "dgx-h100", "nodes": nodes}
    is_long = f"{STEPS} steps" in name
    return parse(
        {
            "workload": workload,
            "parallel": {"pipeline": 1, "microbatches": 1} | parallel,
            "cluster": preset | (UNEVEN if is_long else {}),
            "run": {"horizon": STEPS if is_long else 1},
        }
    )


def cluster_of(name: str) -> Cluster:
    """Return the cluster of a row."""
    profile = calibrated() if name.startswith("calibrated") else None
    return resolve(experiment_of(name), profile)


def bare(experiment: Experiment) -> Callable[[], float]:
    """Return a bare event loop over the passes of a plan; it returns the makespan."""
    parallel = experiment.parallel
    plan = Plan(parallel.pipeline, parallel.microbatches, parallel.virtual_stages)
    schedule = SCHEDULES[parallel.schedule]
    ranks, stages = plan.num_ranks, plan.num_stages

    def before(step: Pass) -> tuple[str, int, int] | None:
        if step.op == "F":
            return ("F", step.stage - 1, step.microbatch) if step.stage else None
        if step.stage == stages - 1:
            return ("F", step.stage, step.microbatch)
        return ("B", step.stage + 1, step.microbatch)

    def loop() -> float:
        orders = [schedule.order(plan, rank) for rank in range(ranks)]
        ended: dict[tuple[str, int, int], float] = {}
        position, free = [0] * ranks, [0.0] * ranks
        waiting: dict[tuple[str, int, int], int] = {}
        events: list[tuple[float, int, tuple[str, int, int]]] = []

        def advance(rank: int) -> None:
            if position[rank] == len(orders[rank]):
                return
            step = orders[rank][position[rank]]
            needed, ready = before(step), 0.0
            if needed is not None:
                if needed not in ended:
                    waiting[needed] = rank
                    return
                ready = ended[needed] + (0.1 if needed[1] != step.stage else 0.0)
            free[rank] = max(free[rank], ready) + (1.0 if step.op == "F" else 2.0)
            position[rank] += 1
            heapq.heappush(events, (free[rank], rank, (step.op.value, step.stage, step.microbatch)))

        for rank in range(ranks):
            advance(rank)
        while events:
            end, rank, step = heapq.heappop(events)
            ended[step] = end
            other = waiting.pop(step, None)
            advance(rank)
            if other is not None and other != rank:
                advance(other)
        return max(free)

    return loop


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the processor time of one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    yardstick = bare(experiment_of("unit 1F1B, 16 stages × 256"))
    for name in PLANS:
        if arguments.names and not any(text in name for text in arguments.names):
            continue
        experiment, cluster = experiment_of(name), cluster_of(name)
        is_unit = experiment.workload.model == "unit"
        loop = bare(experiment) if is_unit else yardstick
        ours, theirs = [], []
        for _ in range(arguments.runs):  # in turn
            theirs.append(cpu_seconds(loop))
            ours.append(cpu_seconds(lambda plan=experiment, on=cluster: predict(plan, on)))
        prediction = predict(experiment, cluster)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"{name}: {statistics.median(ours):.3f} s ({min(ours):.3f} to {max(ours):.3f}), "
            f"{len(prediction.program):,} instructions; "
            f"{'bare loop' if is_unit else 'yardstick'} {statistics.median(theirs):.3f} s, "
            f"ratio {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
