"""Calibration: what this machine needs for each distinct piece of a program.

Segment passes are timed while the other ranks compute as well, as many at once as there
are cores; for transfers see `runtime.transfers`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.clock import Clock
from runtime.data import TORCH_DTYPE, microbatch
from runtime.machine import cores, machine, matmul_flops
from runtime.models import Segment, boundary
from runtime.operations import backward_pass, forward_pass
from runtime.progress import Progress
from runtime.streams import Stream, synchronize
from runtime.transfers import TransferMeter, Transfers
from simulator.costs import pass_key
from simulator.experiment import Experiment
from simulator.profile import Profile, Timing
from simulator.program import COLLECTIVES, Op, Program, Task
from simulator.workloads import describe

ROUND_S = 0.25
OVERLAPPED = 12


class Calibrator:
    """Measures one rank of `program`; every rank must make the same calls together.

    `transfers` once, then `round` as often as wanted (in turn with the measured steps),
    then `profile`.
    """

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        rank: int,
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ):
        self.experiment, self.program, self.rank = experiment, program, rank
        self.device, self.clock, self.progress = device, clock, progress
        self.samples: dict[str, list[float]] = {}
        self.meter = TransferMeter(experiment, program, rank, device, clock, progress)
        self.sent = Transfers()
        self.warm = False
        self.slowdowns: list[float] = []
        self.transfer_cores = 0.0
        self.work = {} if experiment.workload.model == "unit" else self._passes()

    # Segment passes ------------------------------------------------------------------

    def _passes(self) -> dict[str, Callable[[Callable[[str, float], None]], None]]:
        """Per distinct segment of this rank a function that times its passes."""
        layers, dtype = describe(self.experiment), self.experiment.workload.dtype
        work: dict[str, Callable[[Callable[[str, float], None]], None]] = {}
        for instruction in self.program.ranks[self.rank]:
            task = instruction.task
            key = pass_key(task.op, layers[slice(*task.layers)], dtype)
            if key in work:
                continue
            if task.op is Op.FORWARD:
                segment = layers[slice(*task.layers)]
                work[key] = self._time_passes(task, partial(pass_key, layers=segment, dtype=dtype))
            elif task.op is Op.OPTIMIZER_STEP:
                work[key] = self._time_step(task, key)
        return work

    def _time_passes(
        self, task: Task, key: Callable[[Op], str]
    ) -> Callable[[Callable[[str, float], None]], None]:
        segment = Segment(self.experiment, *task.layers, self.device)
        batch, target = microbatch(self.experiment, 0, 0, self.device)

        def random(index: int) -> torch.Tensor:
            shape, dtype = boundary(self.experiment, index)
            return torch.randn(shape, dtype=dtype, device=self.device)

        x = random(segment.first) if segment.first else batch
        gradient = None if segment.is_loss else random(segment.last)
        backwards = {
            i.task.op for i in self.program.ranks[self.rank] if i.task.layers == task.layers
        }
        ways = [
            op is Op.BACKWARD_INPUT for op in (Op.BACKWARD, Op.BACKWARD_INPUT) if op in backwards
        ]

        def run(note: Callable[[str, float], None]) -> None:
            for split in ways:  # a schedule may use both
                start = time.perf_counter()
                _, graph = forward_pass(segment, x, target, 1.0, split)
                synchronize(self.device)
                middle = time.perf_counter()
                backward_pass(graph, gradient)
                synchronize(self.device)
                end = time.perf_counter()
                note(key(Op.FORWARD), middle - start)
                note(key(Op.BACKWARD_INPUT if split else Op.BACKWARD), end - middle)
                deferred = graph[2]
                if deferred is not None:
                    deferred.run()
                    synchronize(self.device)
                    note(key(Op.BACKWARD_WEIGHT), time.perf_counter() - end)

        return run

    def _time_step(self, task: Task, key: str) -> Callable[[Callable[[str, float], None]], None]:
        segments = [
            Segment(self.experiment, *layers, self.device)
            for layers in sorted(
                {i.task.layers for i in self.program.ranks[self.rank] if i.task.op is Op.FORWARD}
            )
            if task.layers[0] <= layers[0] and layers[1] <= task.layers[1]
        ]

        def run(note: Callable[[str, float], None]) -> None:
            start = time.perf_counter()
            for segment in segments:
                segment.update(1e-9)
            synchronize(self.device)
            note(key, time.perf_counter() - start)

        return run

    def _sweep(self, into: dict[str, list[float]]) -> None:
        def note(key: str, seconds: float) -> None:
            into.setdefault(key, []).append(seconds)

        for run in self.work.values():
            self.progress.leave()
            run(note)

    def round(self) -> None:
        """Time every pass: all ranks at once, as many as there are cores, then one alone.

        The two in turn tell how much ranks that compute together slow each other.
        """
        self.progress.leave()
        at_once = min(cores(), self.program.num_ranks)
        together: dict[str, list[float]] = {}
        alone: dict[str, list[float]] = {}
        for first in range(0, self.program.num_ranks, at_once):
            self._sweep_for(ROUND_S, range(first, first + at_once), together)
        if at_once > 1:
            for rank in range(self.program.num_ranks):
                self._sweep_for(ROUND_S / 2, range(rank, rank + 1), alone)
        if alone:
            self.slowdowns.append(_total(together) / _total(alone))
        for key, seconds in together.items():
            self.samples.setdefault(key, []).extend(seconds)
        dist.barrier()

    def _sweep_for(self, seconds: float, ranks: range, into: dict[str, list[float]]) -> None:
        """Time this rank's passes, at least once, if it is one of `ranks`."""
        end = self.clock.common_start() + seconds
        if self.rank in ranks and self.work:
            if not self.warm:
                self._sweep({})
                self.warm = True
            self._sweep(into)
            while self.clock.now() < end:
                self._sweep(into)

    # Transfers -----------------------------------------------------------------------

    def transfers(self, report: Callable[[float, str], None]) -> None:
        """Measure them, and what a transfer takes from compute."""
        self.sent = self.meter.measure(lambda share, what: report(0.9 * share, what))
        report(0.9, "overlap")
        self._overlap()

    def _overlap(self) -> None:
        """Compute beside all-reduces: the slowdown of compute is the share of a core that
        a transfer takes, if ranks fill the cores."""
        sizes = [i.task.nbytes for i in self.program if i.task.op in COLLECTIVES]
        if not sizes or not self.work or self.program.num_ranks > cores():
            return
        dtype = TORCH_DTYPE[self.experiment.workload.dtype]
        values = torch.zeros(max(sizes) // dtype.itemsize, dtype=dtype, device=self.device)
        for _ in range(3):
            self._sweep(self.samples)
        self.samples.clear()
        ratios = []
        for _ in range(3):
            alone: dict[str, list[float]] = {}
            end = self.clock.common_start() + ROUND_S
            while self.clock.now() < end:
                self._sweep(alone)
            self.clock.common_start()
            beside: dict[str, list[float]] = {}
            stream = Stream("overlap", self.device)
            ticket = stream.submit(lambda: _all_reduce_often(values))
            while not ticket.done.is_set():
                self._sweep(beside)
            stream.close()
            ratios.append(_total(beside) / _total(alone))
        slower = torch.tensor([float(np.median(ratios))], dtype=torch.float64, device=self.device)
        dist.all_reduce(slower)
        mean = float(slower[0]) / self.program.num_ranks
        self.transfer_cores = min(max(mean * cores() / self.program.num_ranks - 1.0, 0.0), 1.0)

    # Result --------------------------------------------------------------------------

    def profile(self) -> dict[str, Any] | None:
        """The profile as JSON on rank 0, None elsewhere."""
        everything: list[Any] | None = [None] * self.program.num_ranks if self.rank == 0 else None
        dist.gather_object((self.samples, self.slowdowns), everything)
        if everything is None:
            return None
        merged: dict[str, list[float]] = {}
        for samples, _ in everything:
            for key, seconds in samples.items():
                merged.setdefault(key, []).extend(seconds)
        # Together ÷ alone, as ratios of one round: passes are stated alone, and what ranks
        # that compute together lose is that they share fewer cores than they are given.
        ratios = [ratio for _, slowdowns in everything for ratio in slowdowns]
        slowdown = min(max(float(np.median(ratios)), 1.0), float(cores())) if ratios else 1.0
        dtype = self.experiment.workload.dtype
        profile = Profile(
            machine=machine(),
            device=self.device.type,
            passes={
                key: Timing.of([time / slowdown for time in seconds])
                for key, seconds in sorted(merged.items())
            },
            effective_cores=cores() / slowdown,
            messages=_ascending(self.sent.messages.items()),
            all_reduces={size: _ascending(p.items()) for size, p in self.sent.all_reduces.items()},
            issue_s=self.sent.issue_s or 0.0,
            wake_s=self.sent.wake_s,
            transfer_cores=self.transfer_cores,
            peak_flops={dtype: matmul_flops(TORCH_DTYPE[dtype], self.device)},
        )
        return asdict(profile)


def _all_reduce_often(values: torch.Tensor) -> None:
    for _ in range(OVERLAPPED):
        dist.all_reduce(values)


def _total(samples: dict[str, list[float]]) -> float:
    return sum(float(np.median(seconds)) for seconds in samples.values())


def _ascending(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted(points)
