"""The step time of the runtime beside torch's own DDP, FSDP2 and pipeline schedules.

    python tests/benchmarks/beside_torch.py [--pairs N] [SHAPE | PLAN]...

Both train the same layers on the same data, in the same two processes with one thread each, a
step of one and a step of the other in turn. Such a pair gives one ratio, ours over torch's;
printed are medians and quartiles. The last column says how many cores other programs used
meanwhile: ratios are those of the two runtimes only where it is near 0. Losses must agree.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel

from runtime.executor.context import Batches, RankContext
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.observers import StalenessObserver
from runtime.executor.rank import Rank
from runtime.measurement.clock import Clock
from runtime.models.batches import microbatch
from runtime.models.segment import build_layer
from runtime.progress import Progress, attach, create
from simulator.experiment.experiment import Experiment
from simulator.experiment_file import parse
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe

RANKS = 2
WARM_UP = 3
CPU = torch.device("cpu")
SHAPES = {
    "thin": {"layers": 8, "hidden": 64, "heads": 4, "sequence": 32},
    "wide": {"layers": 2, "hidden": 512, "heads": 8, "sequence": 64},
}
PLANS: dict[str, dict[str, Any]] = {
    "ddp": {"data": 2, "pipeline": 1, "microbatches": 2},
    "fsdp2": {"data": 2, "pipeline": 1, "zero": 3, "microbatches": 2},
    "gpipe": {"pipeline": 2, "schedule": "gpipe", "microbatches": 8},
    "1f1b": {"pipeline": 2, "schedule": "1f1b", "microbatches": 8},
}
SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}

Step = Callable[[], float | None]
"""Runs one step; returns the mean loss of this rank's microbatches, where it has them."""


def ours(experiment: Experiment, rank: int, folder: Path, batches: Batches) -> Step:
    """Return a step of the executor, with all that a run of `twinline run` records."""
    program = lower(experiment)
    mine = Rank(experiment, program, rank, CPU, Progress(attach(folder), rank))
    context = RankContext(mine, Groups([program], experiment.run.timeout_s))
    executor = Executor(context, [StalenessObserver(context)])

    def step() -> float | None:
        executor.step(batches)
        return mean([loss for _, loss in context.losses])

    return step


def mean(losses: list[torch.Tensor]) -> float | None:
    """Return the mean of losses; None if there are none."""
    return float(torch.stack(losses).mean()) if losses else None


class Logits(nn.Module):
    """The last layer without its loss, which torch's schedules compute themselves."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.norm, self.logits = head.norm, head.logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, sequence, hidden) to (batch, sequence, vocab)."""
        return self.logits(self.norm(x))


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean over all tokens."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


def theirs(experiment: Experiment, rank: int, plan: str, batches: Batches) -> Step:
    """Return a step of torch's."""
    *layers, head = (build_layer(experiment, i, CPU) for i in range(len(describe(experiment))))
    layers.append(Logits(head))
    if plan in SCHEDULES:
        return pipeline_step(experiment, rank, plan, layers, batches)
    model: nn.Module = nn.Sequential(*layers)
    if plan == "ddp":
        model = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (RANKS,))
        for layer in model.children():
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=experiment.run.learning_rate)

    def step() -> float | None:
        optimizer.zero_grad()
        losses = []
        for (_, index), (x, target) in batches.items():
            last = index + 1 == len(batches)
            local = plan == "ddp" and not last
            with model.no_sync() if local else contextlib.nullcontext():
                loss = cross_entropy(model(x), target)
                (loss / len(batches)).backward()
            losses.append(loss.detach())
        optimizer.step()
        return mean(losses)

    return step


def pipeline_step(
    experiment: Experiment, rank: int, plan: str, layers: list[nn.Module], batches: Batches
) -> Step:
    """Return a step of one of torch's pipeline schedules."""
    cut = [0, len(layers) // 2, len(layers)]
    part = nn.Sequential(*layers[cut[rank] : cut[rank + 1]])
    stage = PipelineStage(part, rank, RANKS, CPU)
    schedule = SCHEDULES[plan](stage, len(batches), loss_fn=cross_entropy)
    optimizer = torch.optim.SGD(part.parameters(), lr=experiment.run.learning_rate)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches.values(), strict=True))

    def step() -> float | None:
        losses: list[torch.Tensor] = []
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(inputs)
        else:
            schedule.step(target=targets, losses=losses)
        optimizer.step()
        return mean([loss.detach() for loss in losses])

    return step


class Turn(NamedTuple):
    """A step: its time, from the common start to the last rank's end, and its loss, a mean over
    the ranks that have one."""

    seconds: float
    loss: float


class Pair(NamedTuple):
    """A step of each, and how many cores other programs used meanwhile."""

    ours: Turn
    torchs: Turn
    others: float


def turn(step: Step, clock: Clock) -> Turn:
    """Run a step."""
    begin = clock.common_start()
    loss = step()
    end = torch.tensor([clock.now()], dtype=torch.float64)
    dist.all_reduce(end, op=dist.ReduceOp.MAX)
    found = torch.tensor([loss or 0.0, float(loss is not None)], dtype=torch.float64)
    dist.all_reduce(found)
    return Turn(float(end) - begin, float(found[0] / found[1]))


class Others:
    """The cores that programs other than the ranks use."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._busy, self._own = busy_seconds(), time.process_time()

    def cores(self) -> float:
        """Return how many they used since this was made; the same on every rank."""
        lasted = time.perf_counter() - self._begin
        found = torch.tensor([busy_seconds() - self._busy, time.process_time() - self._own])
        dist.all_reduce(found)
        return float(found[0] / RANKS - found[1]) / lasted


def busy_seconds() -> float:
    """Return the seconds that all cores of this machine have worked, as Linux counts them."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:8]
    )
    return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK")


def rank_main(rank: int, shape: str, plan: str, pairs_wanted: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch's own
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    workload = {"model": "gpt", "vocab": 256, "global_batch": 16, **SHAPES[shape]}
    experiment = parse({"workload": workload, "parallel": PLANS[plan]})
    count = experiment.parallel.microbatches
    first = experiment.mesh.replica(rank) * count
    batches = {(0, i): microbatch(experiment, 0, first + i, CPU) for i in range(count)}
    clock = Clock()
    both = ours(experiment, rank, folder, batches), theirs(experiment, rank, plan, batches)
    for step in both:
        for _ in range(WARM_UP):
            turn(step, clock)
    pairs = []
    for _ in range(pairs_wanted):
        others = Others()
        turns = [turn(step, clock) for step in both]
        pairs.append(Pair(*turns, others.cores()))
    if rank == 0:
        report(f"{shape} {plan}", pairs)
    dist.barrier()
    dist.destroy_process_group()


def report(name: str, pairs: list[Pair]) -> None:
    """Print the ratios; losses that differ are a mistake of this benchmark."""
    low, ratio, high = statistics.quantiles(p.ours.seconds / p.torchs.seconds for p in pairs)
    ours = 1e3 * statistics.median(pair.ours.seconds for pair in pairs)
    torchs = 1e3 * statistics.median(pair.torchs.seconds for pair in pairs)
    others = max(statistics.median(pair.others for pair in pairs), 0.0)
    print(
        f"{name:11} {ours:7.1f} {torchs:8.1f} {ratio:7.3f} {low:7.3f} {high:7.3f} {others:7.1f}",
        flush=True,
    )
    mine, other = pairs[-1].ours.loss, pairs[-1].torchs.loss
    if abs(mine - other) > 1e-4 * other:
        raise SystemExit(f"{name}: the losses differ: {mine} and {other}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("names", nargs="*", metavar="SHAPE | PLAN")
    arguments = parser.parse_args()
    known = {*SHAPES, *PLANS}
    if wrong := set(arguments.names) - known:
        parser.error(f"unknown: {', '.join(sorted(wrong))}; allowed: {', '.join(known)}")
    named = set(arguments.names)
    print(f"{'':11} ours ms torch ms   ratio   lower   upper  others")
    for shape in [s for s in SHAPES if s in named] or SHAPES:
        for plan in [p for p in PLANS if p in named] or PLANS:
            with tempfile.TemporaryDirectory() as folder:
                create(Path(folder), RANKS)
                given = (shape, plan, arguments.pairs, Path(folder))
                multiprocessing.start_processes(rank_main, given, RANKS, start_method="fork")


if __name__ == "__main__":
    main()
