"""What the passes of a rank cost: timed in the order of its program, again and again, so
that caches and memory are as they are in a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from runtime.buckets import collecting
from runtime.data import microbatch
from runtime.deferral import Deferred
from runtime.models import Segment, boundary
from runtime.operations import (
    Graph,
    backward_pass,
    forward_pass,
    keeps_graph,
    pass_without_graph,
)
from runtime.parameters import parameters_of
from runtime.progress import Progress
from runtime.streams import synchronize
from simulator.costs import pass_key
from simulator.experiment import Experiment
from simulator.program import COMPUTE_STREAM, FORWARDS, INPUT_BACKWARDS, Instruction, Op, Program
from simulator.strategies import mesh_of
from simulator.workloads import describe

Samples = dict[str, list[float]]
"""Seconds by `simulator.costs.pass_key`."""


class PassMeter:
    """Times the compute instructions of one rank, on data of its own."""

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        rank: int,
        device: torch.device,
        progress: Progress,
    ):
        self.experiment, self.device, self.progress = experiment, device, progress
        computes = experiment.workload.model != "unit"
        self.order = [
            i for i in program.ranks[rank] if i.task.stream == COMPUTE_STREAM and computes
        ]
        layers = describe(experiment)
        self.key_of = {
            id(i.task): pass_key(
                i.task.op,
                layers[slice(*i.task.layers)],
                experiment.workload,
                experiment.parallel,
            )
            for i in self.order
        }
        ranges = {i.task.layers for i in self.order if i.task.op is Op.FORWARD}
        place = mesh_of(experiment).coordinate(rank)
        self.segments = {span: Segment(experiment, *span, device, place) for span in sorted(ranges)}
        # Weights stay whole: to gather them is not compute.
        buckets = [replace(b, zero=min(b.zero, 2)) for b in program.buckets[rank]]
        self.parameters = list(parameters_of(experiment, buckets, self.segments, rank).values())
        self._bucket_of = {s: p for p in self.parameters for s in p.segments}
        self.split = {
            (i.task.layers, i.microbatch) for i in self.order if i.task.op is Op.BACKWARD_WEIGHT
        }
        self.batch, self.target = (
            microbatch(experiment, 0, 0, device) if self.order else (torch.empty(0),) * 2
        )
        self.boundaries = {
            index: self._random(index)
            for segment in self.segments.values()
            for index in (*segment.inputs, *segment.outputs)
        }
        self._walk = self._forever()
        self.warm = False

    def _random(self, index: int) -> torch.Tensor:
        shape, dtype = boundary(self.experiment, index)
        return torch.randn(shape, dtype=dtype, device=self.device)

    def time(self, into: Samples, goes_on: Callable[[], bool]) -> None:
        """Go on with the walk, at least one pass, while `goes_on`."""
        while self.order:
            key, seconds = next(self._walk)
            into.setdefault(key, []).append(seconds)
            self.progress.leave()  # a sign of life
            if not goes_on():
                return

    def warm_up(self) -> None:
        """Every pass of the program once, not counted; the first time only."""
        if not self.warm:
            self.warm = True
            count = iter(range(len(self.order) - 1))
            self.time({}, lambda: next(count, None) is not None)

    def fill(self, into: Samples) -> None:
        """Go on until every distinct pass is in `into`."""
        keys = set(self.key_of.values())
        if not keys <= into.keys():
            self.time(into, lambda: not keys <= into.keys())

    def _forever(self) -> Iterator[tuple[str, float]]:
        while True:
            graphs: dict[tuple[int, int], Graph] = {}
            deferred: dict[tuple[int, int], Deferred] = {}
            for instruction in self.order:
                yield self.key_of[id(instruction.task)], self._time(instruction, graphs, deferred)

    def _time(
        self,
        instruction: Instruction,
        graphs: dict[tuple[int, int], Graph],
        deferred: dict[tuple[int, int], Deferred],
    ) -> float:
        task, number = instruction.task, instruction.microbatch
        key = (task.layers[0], number)
        segment = self.segments.get(task.layers)
        if task.op in FORWARDS:
            assert segment is not None
            tensors = {index: self.boundaries[index].clone() for index in segment.inputs}
            tensors[0] = self.batch
            split = (task.layers, number) in self.split
            for parameters in self.parameters:
                parameters.use(-1)
            again = self.boundaries.__getitem__
            start = time.perf_counter()
            if keeps_graph(task):
                _, graphs[key] = forward_pass(segment, tensors, self.target, 1.0, split, again)
            else:
                pass_without_graph(segment, tensors, self.target)
        elif task.op in INPUT_BACKWARDS:
            graph = graphs.pop(key)
            gradients = {
                index: self.boundaries[index].clone()
                for index in graph.roots
                if index in self.boundaries
            }
            if graph.deferred is not None:
                deferred[key] = graph.deferred
            start = time.perf_counter()
            with collecting(self._bucket_of.get(task.layers), task, 0):  # one before is dropped
                backward_pass(graph, gradients)
        elif task.op is Op.BACKWARD_WEIGHT:
            work = deferred.pop(key)
            start = time.perf_counter()
            with collecting(self._bucket_of.get(task.layers), task, 0):  # one before is dropped
                work.run()
        elif task.op is Op.GRADIENT_NORM:
            start = time.perf_counter()
            for parameters in self.parameters:
                if parameters.within(task.layers):
                    parameters.gradients_square()
        else:
            keep_old = bool(task.allocates)  # graphs of passes in flight hold them
            start = time.perf_counter()
            for parameters in self.parameters:
                if parameters.within(task.layers):
                    parameters.update(1e-9, parameters.scaled_gradients(1.0), keep_old)
                    if keep_old:
                        parameters.forget(parameters.newest - 1)
        synchronize(self.device)
        return time.perf_counter() - start
