"""What an instruction costs alone, and which shared resources it uses."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import prod

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.timing import TENTHS, Timing
from simulator.cluster.transfer_share import transfer_share, wake_weight
from simulator.engine import kernels
from simulator.engine.contention import Demand
from simulator.engine.demands import Sharing
from simulator.engine.kernels import Work
from simulator.experiment.experiment import Experiment
from simulator.experiment.parallel import Parallel
from simulator.experiment.workload import Workload
from simulator.program.instruction import Instruction
from simulator.program.operations import (
    COLLECTIVES,
    COMMUNICATION,
    COMPUTE_STREAM,
    FORWARDS,
    INPUT_BACKWARDS,
    MESSAGES,
    Op,
)
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.workloads.describe import Layer, describe

UNSHARDED = Parallel()

BACKWARD_BYTES = 1.5
"""An element-wise operator reads its input and writes its output; its backward pass reads the
input and the output's gradient and writes the input's: three tensors in place of two."""


def pass_key(
    op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel = UNSHARDED
) -> str:
    """Names a segment pass in a profile: equal keys, equal work."""
    how: str = workload.dtype
    if op is Op.OPTIMIZER_STEP:
        clips = " clipped" if workload.clip_norm is not None else ""
        how += f" {workload.optimizer}{clips}"
    if op in (Op.OPTIMIZER_STEP, Op.GRADIENT_NORM) and parallel.shards_optimizer:
        whole = "" if parallel.shards_gradients else " of whole gradients"  # which it sets to zero
        how += f" 1/{parallel.shards}{whole if op is Op.OPTIMIZER_STEP else ''}"
    if op in INPUT_BACKWARDS and parallel.shards_gradients:
        how += " into new gradients"
    segment = " + ".join(layer.kind for layer in layers)
    return f"{op.value} {how}: {segment}"


class CostModel:
    """Costs of one experiment on one cluster; see `simulator.engine.Costs`.

    A measured pass of the cluster's profile wins over the estimate. `estimated` collects
    the passes for which a profile had no measurement, `unmeasured` whether it had none of
    messages or of collectives; `is_spread`: durations were measured and so have a spread.
    """

    def __init__(self, program: Program, experiment: Experiment, cluster: Cluster):
        self.experiment, self.cluster, self._count = experiment, cluster, len(program)
        self.layers = describe(experiment)
        self.fixed = experiment.workload.model == "unit"
        self.estimated: set[str] = set()
        self.unmeasured: set[str] = set()
        self.capacities: dict[str, float] = {}
        self.sharing: Sharing | None = None
        assert cluster.cores is None or not program.is_folded  # those who share must be there
        self.scale = experiment.run.pace or 1.0
        modelled = self.fixed or experiment.run.pace is not None  # the host's limits do not show
        self.is_spread = cluster.profile is not None and not modelled
        self._timings: dict[tuple[int, int], Timing] = {}
        self._draws: list[int] | None = None
        self._speeds = [1.0]
        # by the layer's identity: on the device, and on the host that launches
        self._estimates: dict[tuple[Op, int, str], tuple[float, float]] = {}
        if not modelled:
            mesh = experiment.mesh if program.is_folded else None
            self.sharing = Sharing(program, cluster, mesh, self._mean_alone)
            self.capacities = self.sharing.capacities
        self._shares: dict[tuple[int, int], tuple[float, float]] = {}
        # Presets of GPUs have the host's time in those of their kernels.
        has_host = cluster.cores is not None or cluster.profile is not None
        self._queued = _queued_before(program) if has_host and not modelled else None

    def seconds(self, instruction: Instruction) -> float:
        """Duration alone, plus for compute the host time to issue it and what precedes it."""
        task = instruction.task
        timing = self._timing(instruction.rank, task)
        drawn = self._draws[instruction.uid] if self._draws is not None else None
        seconds = self.scale * (timing.mean_s if drawn is None else timing.tenths[drawn])
        if task.stream == COMPUTE_STREAM:
            seconds *= self._speeds[instruction.rank % len(self._speeds)]
        if self._queued is not None and task.stream == COMPUTE_STREAM:
            queued = self._queued[instruction.uid]
            return seconds + self.cluster.issue_s + self.cluster.queue_s * queued
        return seconds

    def drawn(self, seed: int, step: int) -> CostModel:
        """The same costs with every duration drawn from the measured ones, and the passes of each
        rank as slow as they were in one of the rounds of calibration: of each as many as of
        another. Who waits for several waits for the slowest.
        """
        drawn = copy(self)
        rounds = self.cluster.profile.rounds if self.cluster.profile else []
        drawn._speeds = rounds[step % len(rounds)] if rounds else [1.0]
        generator = np.random.default_rng((seed, step))
        drawn._draws = generator.integers(0, TENTHS, self._count).tolist()
        return drawn

    def delay(self, instruction: Instruction) -> float:
        """A stream that waited for another one takes a moment to wake."""
        if self._queued is None or not instruction.after:
            return 0.0
        return self.cluster.wake_s

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        """Who wakes up waits for a core where others compute on all of them."""
        weight = wake_weight(self.cluster)
        if weight is None or self.sharing is None:
            return (), 1.0
        return self.sharing.presence(instruction.rank), weight

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        if self.sharing is None:
            return ()
        amount, _ = self._share(participants)
        return self.sharing.demand(participants, amount)

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        return self._share(participants)[1]

    def _share(self, participants: tuple[Instruction, ...]) -> tuple[float, float]:
        """Of cores or devices, for every participant; see `transfer_share`."""
        rank, task = participants[0].rank, participants[0].task
        key = (rank, id(task))
        if key not in self._shares:
            if task.op not in COMMUNICATION:
                self._shares[key] = self._busy_share(rank, task), 1.0
            else:
                size = 2 if task.op in MESSAGES else len(task.group)
                timing = self._timing(rank, task)
                self._shares[key] = transfer_share(self.cluster, timing, size)
        return self._shares[key]

    def _busy_share(self, rank: int, task: Task) -> float:
        """Of its time that a pass computes: a device waits while kernels are launched."""
        if self.cluster.cores is not None or self._key_in_profile(task) is not None:
            return 1.0
        times = [self._estimated(task.op, layer, rank) for layer in self._layers_of(task)]
        lasts = sum(max(both) for both in times)
        return sum(device_s for device_s, _ in times) / lasts if lasts > 0 else 1.0

    def _mean_alone(self, rank: int, task: Task) -> float:
        return self._timing(rank, task).mean_s

    def _timing(self, rank: int, task: Task) -> Timing:
        key = (rank, id(task))
        timing = self._timings.get(key)
        if timing is None:
            timing = self._timings[key] = self._alone(rank, task)
        return timing

    def _alone(self, rank: int, task: Task) -> Timing:
        profile, op, nbytes = self.cluster.profile, task.op, task.nbytes
        if op in MESSAGES and self.fixed:
            return Timing.certain(self.experiment.workload.p2p)
        if op in MESSAGES:
            if profile is not None and not profile.messages:
                self.unmeasured.add("messages")
            return self.cluster.message(rank, task.peer, nbytes)
        if op in COLLECTIVES:
            if profile is not None and not profile.collectives:
                self.unmeasured.add("collectives")
            return self.cluster.collective(op, task.group, nbytes)
        layers = self._layers_of(task)
        if self.fixed:
            return Timing.certain(sum(_fixed(op, layer) for layer in layers))
        key = self._key_in_profile(task)
        if profile is not None and key is not None:
            return profile.passes[key]
        if profile is not None:
            self.estimated.add(self._key_of(op, task))
        return Timing.certain(sum(self.estimate(op, layer, rank) for layer in layers))

    def _layers_of(self, task: Task) -> list[Layer]:
        return self.layers[task.layers[0] : task.layers[1]]

    def _key_of(self, op: Op, task: Task) -> str:
        experiment = self.experiment
        return pass_key(op, self._layers_of(task), experiment.workload, experiment.parallel)

    def _key_in_profile(self, task: Task) -> str | None:
        """Under which a pass was measured; None: it was not."""
        if self.cluster.profile is None:
            return None
        ops = (Op.RECOMPUTE, Op.FORWARD) if task.op is Op.RECOMPUTE else (task.op,)
        keys = (self._key_of(op, task) for op in ops)
        return next((key for key in keys if key in self.cluster.profile.passes), None)

    def estimate(self, op: Op, layer: Layer, rank: int = 0) -> float:
        """From the shapes of the layer's kernels; see `simulator.engine.kernels`."""
        return max(self._estimated(op, layer, rank))

    def _estimated(self, op: Op, layer: Layer, rank: int) -> tuple[float, float]:
        kind = self.cluster.topology.kind(rank)
        key = (op, id(layer), kind)
        if key not in self._estimates:
            workload = self.experiment.workload
            work = work_of(op, layer, workload, self.experiment.parallel)
            device = self.cluster.kinds[kind]
            times = kernels.times(device, workload.dtype, workload.dtype_bytes, work)
            self._estimates[key] = times
        return self._estimates[key]


def _fixed(op: Op, layer: Layer) -> float:
    forward, backward_input, backward_weight = layer.seconds or (0.0, 0.0, 0.0)
    return {
        Op.FORWARD: forward,
        Op.RECOMPUTE: forward,
        Op.BACKWARD: backward_input + backward_weight,
        Op.BACKWARD_INPUT: backward_input,
        Op.BACKWARD_WEIGHT: backward_weight,
    }[op]


def work_of(op: Op, layer: Layer, workload: Workload, parallel: Parallel) -> Work:
    """Matrix products, bytes and kernels of an operation on a layer."""
    if layer.exchange is not None:
        return Work()
    if op in FORWARDS:
        return Work(layer.products, layer.moved_bytes, layer.kernels)
    size = float(layer.parameters * workload.dtype_bytes)
    if op in (Op.BACKWARD, Op.BACKWARD_INPUT):
        products = (*layer.recomputed, *layer.backward_input)
        if op is Op.BACKWARD:
            products += layer.backward_weight
        nbytes = BACKWARD_BYTES * layer.moved_bytes + layer.recomputed_bytes
        new = parallel.shards_gradients and size > 0  # gradients are zeroed for each microbatch
        launched = layer.kernels + layer.recomputed_kernels + new
        return Work(products, nbytes + new * size, launched)
    if op is Op.BACKWARD_WEIGHT:
        return Work(layer.backward_weight)
    if not layer.parameters:
        return Work()
    ranks = prod(getattr(parallel, axis) for axis in layer.sums_over)
    shards = min(parallel.shards, ranks)  # experts have fewer ranks to share them
    mine, part = layer.parameters / shards, size / shards
    if op is Op.GRADIENT_NORM:
        return Work((), part, 1)
    if op is not Op.OPTIMIZER_STEP:
        raise ValueError(f"no cost for {op.value}")
    # Reads parameter, gradient and state, writes all of them; the gradient is zeroed.
    # Of master weights the fp32 ones are read and written, and the copy is written.
    clips = workload.clip_norm is not None
    whole = parallel.shards_optimizer and not parallel.shards_gradients
    weights = part if workload.has_master_weights else 2.0 * part
    moved = weights + (1.0 + 2.0 * clips) * part + (size if whole else part)
    return Work((), moved + 2.0 * workload.optimizer_bytes * mine, 2 + clips)


def _queued_before(program: Program) -> list[int]:
    """Per instruction uid: communication queued since the compute before it, for a compute
    instruction. The thread that queues it runs the passes, so this time is compute time.
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
