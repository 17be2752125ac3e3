"""Costs from the shapes of kernels, for machines that were not measured."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.resource import Resource
from simulator.cluster.timing import Timing
from simulator.cluster.transfer_share import transfer_share, wake_weight
from simulator.engine import kernels
from simulator.engine.contention import Demand
from simulator.engine.demands import Demands
from simulator.engine.durations import Durations
from simulator.engine.host_time import hides_host, launch_times
from simulator.engine.layer_work import work_of, work_of_bucket
from simulator.engine.questions import Costs, seconds_by_task
from simulator.engine.rank_speeds import RankSpeeds
from simulator.engine.replica_folding import folding_of
from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
from simulator.program.meetings import CARRIED
from simulator.program.operations import COMMUNICATION, MESSAGES, Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task
from simulator.workloads.layer import Layer

_CARRIED_OR_PASS = frozenset(Op) - COMMUNICATION | CARRIED


class EstimatedDurations(Durations):
    """Durations of passes from the shapes of their kernels (see `simulator.engine.kernels`)."""

    def __init__(self, experiment: Experiment, cluster: Cluster) -> None:
        super().__init__(experiment, cluster)
        self._estimates: dict[tuple[Op, int, str], tuple[float, float]] = {}  # by id of the layer

    def compute(self, rank: int, task: Task) -> Timing:
        """Return the estimate of a pass: the sum over its layers, or the work on a bucket."""
        return Timing.certain(sum(max(both) for both in self._parts(rank, task)))

    def busy_share(self, rank: int, task: Task) -> float:
        """Return the share of its time in which a pass computes.

        A device is idle where launching the kernels takes longer than the kernels.
        """
        if self.cluster.cores is not None:
            return 1.0
        times = self._parts(rank, task)
        lasts = sum(max(both) for both in times)
        return sum(device_s for device_s, _ in times) / lasts if lasts > 0 else 1.0

    def _parts(self, rank: int, task: Task) -> list[tuple[float, float]]:
        """Return seconds on the device, and of the host that launches, of each part of a pass."""
        if task.tensor:
            workload = self.experiment.workload
            work = work_of_bucket(task, workload)
            device = self.cluster.device_of(rank)
            return [kernels.times(device, workload.dtype, workload.dtype_bytes, work)]
        return [self._times(task.op, layer, rank) for layer in self.layers_of(task)]

    def _times(self, op: Op, layer: Layer, rank: int) -> tuple[float, float]:
        """Return seconds on the device, and of the host that launches, for a layer."""
        kind = self.cluster.topology.kind(rank)
        key = (op, id(layer), kind)
        if key not in self._estimates:
            workload = self.experiment.workload
            work = work_of(op, layer, workload, self.experiment.parallel)
            device = self.cluster.kinds[kind]
            times = kernels.times(device, workload.dtype, workload.dtype_bytes, work)
            self._estimates[key] = times
        return self._estimates[key]


class EstimatedCosts(Costs):
    """Estimated durations, host time to issue instructions, and shared links and devices.

    Presets of GPUs have no host time: it is in the time of their kernels. Where hosts run ahead of
    their devices, it is hidden behind what these do.
    """

    def __init__(self, program: Program, durations: EstimatedDurations) -> None:
        cluster = self.cluster = durations.cluster
        self.durations = durations
        self.speeds = RankSpeeds(durations.experiment)
        folding = folding_of(durations.experiment, cluster) if program.is_folded else None
        assert not program.is_folded or (folding and folding.list_of == program.list_of)
        self.demands = Demands(program, cluster, folding, durations.seconds)
        self.capacities = self.demands.capacities
        self._queued, self._launches = None, list[float]()
        if self.has_host and hides_host(durations.experiment, program):
            self._launches = launch_times(program, cluster)
        elif self.has_host:
            self._queued = _queued_before(program)
        self._shares: dict[tuple[int, int], tuple[float, float]] = {}

    @property
    def has_host(self) -> bool:
        """True if the host that issues instructions takes time of its own."""
        return self.cluster.cores is not None

    def seconds(self, instruction: Instruction) -> float:
        """Return the duration alone, and for compute also the host time spent on it.

        The host issues it, and before that the communication that is queued ahead of it.
        """
        seconds = self.alone(instruction)
        if self._queued is None or instruction.task.stream != COMPUTE_STREAM:
            return seconds
        queued = self._queued[instruction.uid]
        return seconds + self.cluster.issue_s + self.cluster.queue_s * queued

    def all_seconds(self, program: Program) -> list[float]:
        """Return the duration of every instruction, where that depends on its task alone."""
        if not self.has_host:
            of_tasks = seconds_by_task(program, self.durations.seconds)
            return self.speeds.scaled(program, of_tasks)
        return super().all_seconds(program)

    def all_delays(self, program: Program) -> list[float]:
        """Return the time in which the stream of every instruction wakes."""
        return super().all_delays(program) if self.has_host else [0.0] * len(program)

    def all_launches(self, program: Program) -> list[float]:
        """Return when hosts that run ahead have launched each instruction at the earliest."""
        return self._launches

    def alone(self, instruction: Instruction) -> float:
        """Return the duration of an instruction without host time."""
        seconds = self.durations.seconds(instruction.rank, instruction.task)
        return seconds * self.speeds.factor(instruction)

    def delay(self, instruction: Instruction) -> float:
        """Return the time in which a stream wakes that has waited for another one.

        Where a pass waits for a collective, or that for a pass, no other thread is woken.
        """
        if self._queued is None or not instruction.after:
            return 0.0
        profile = self.cluster.profile
        if profile is None or profile.wake_collective_s is None:
            return self.cluster.wake_s
        carried = all(i.task.op in _CARRIED_OR_PASS for i in (instruction, *instruction.after))
        return profile.wake_collective_s if carried else self.cluster.wake_s

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        """Return what a waking stream needs: a core, where passes may occupy all of them."""
        weight = wake_weight(self.cluster)
        if weight is None:
            return (), 1.0
        return self.demands.presence(instruction.rank), weight

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Return what `participants` take of links, cores and devices at full speed."""
        amount, _ = self._share(participants)
        return self.demands.demand(participants, amount)

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """Return the weight with which a transfer competes with passes."""
        return self._share(participants)[1]

    def are_alike(self) -> bool:
        """True unless steps differ, or the host takes time: more where more is queued."""
        return not self.has_host and not self.speeds.vary

    def likeness(self, program: Program) -> Sequence[int]:
        """Return a number for each task of a rank, and whether it shares its cores or device."""
        first, found = 0, []
        for columns in program.columns:
            found.append(columns.task + first)
            first += len(columns.tasks)
        beside = self.demands.beside(len(program))
        likeness: list[int] = (np.concatenate(found) * 2 + beside).tolist()
        return likeness

    def own(self, rank: int) -> Set[Resource]:
        """Return the device and links that only passes and collectives of this rank use."""
        return self.demands.own(rank)

    def _share(self, participants: tuple[Instruction, ...]) -> tuple[float, float]:
        """Return each participant's share of its cores or device, and the weight.

        See `simulator.cluster.transfer_share`.
        """
        rank, task = participants[0].rank, participants[0].task
        key = (rank, id(task))
        if key not in self._shares:
            if task.op not in COMMUNICATION:
                self._shares[key] = self.durations.busy_share(rank, task), 1.0
            else:
                size = 2 if task.op in MESSAGES else len(task.group)
                timing = self.durations.timing(rank, task)
                self._shares[key] = transfer_share(self.cluster, timing, size)
        return self._shares[key]


def _queued_before(program: Program) -> list[int]:
    """Return, by uid of a compute instruction, the communication queued since the last one.

    The thread that queues it runs the passes, so this time is compute time.
    """
    counts = [0] * len(program)
    for instructions in program.ranks:
        queued = 0
        for instruction in instructions:
            if instruction.task.op in COMMUNICATION:
                queued += 1
            else:
                counts[instruction.uid] = queued
                queued = 0
    return counts
