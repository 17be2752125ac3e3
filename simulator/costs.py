"""What an instruction costs alone, and which shared resources it uses."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from simulator.cluster import Cluster
from simulator.contention import Demand
from simulator.experiment import OPTIMIZER_STATES, Experiment, Parallel, Workload
from simulator.program import (
    COLLECTIVES,
    COMMUNICATION,
    COMPUTE_STREAM,
    FORWARDS,
    INPUT_BACKWARDS,
    MESSAGES,
    Instruction,
    Op,
    Program,
    Task,
)
from simulator.workloads import Layer, describe

UNSHARDED = Parallel()


def pass_key(
    op: Op, layers: Sequence[Layer], workload: Workload, parallel: Parallel = UNSHARDED
) -> str:
    """Names a segment pass in a profile: equal keys, equal work."""
    how: str = workload.dtype
    if op is Op.OPTIMIZER_STEP:
        clips = " clipped" if workload.clip_norm is not None else ""
        how += f" {workload.optimizer}{clips}"
    if op in (Op.OPTIMIZER_STEP, Op.GRADIENT_NORM) and parallel.zero:
        whole = " of whole gradients" if parallel.zero == 1 else ""  # which it sets to zero
        how += f" 1/{parallel.shards}{whole if op is Op.OPTIMIZER_STEP else ''}"
    if op in INPUT_BACKWARDS and parallel.zero > 1:
        how += " into new gradients"
    segment = " + ".join(layer.kind for layer in layers)
    return f"{op.value} {how}: {segment}"


class CostModel:
    """Costs of one experiment on one cluster; see `simulator.engine.Costs`.

    A measured pass of the cluster's profile wins over the roofline. `estimated` collects
    the passes for which a profile had no measurement.
    """

    def __init__(self, program: Program, experiment: Experiment, cluster: Cluster):
        self.experiment, self.cluster = experiment, cluster
        self.layers = describe(experiment)
        self.fixed = experiment.workload.model == "unit"
        self.estimated: set[str] = set()
        self.capacities: dict[str, float] = {}
        assert cluster.cores is None or not program.is_folded  # those who share must be there
        self.scale = experiment.run.pace or 1.0
        modelled = self.fixed or experiment.run.pace is not None  # the host's limits do not show
        if cluster.cores is not None and not modelled:
            self.capacities = {f"cores:{node}": cluster.cores for node in range(cluster.nodes)}
        self._seconds: dict[tuple[int, int], float] = {}
        on_host = cluster.cores is not None and not modelled
        self._issued = _issued_before(program) if on_host else None

    def seconds(self, instruction: Instruction) -> float:
        """Duration alone, plus for compute the host time to issue it and what precedes it."""
        task = instruction.task
        key = (instruction.rank, id(task))
        seconds = self._seconds.get(key)
        if seconds is None:
            seconds = self._seconds[key] = self.scale * self._alone(instruction.rank, task)
        if self._issued is not None and task.stream == COMPUTE_STREAM:
            return seconds + self.cluster.issue_s * self._issued[instruction.uid]
        return seconds

    def delay(self, instruction: Instruction) -> float:
        """A stream that waited for another one takes a moment to wake."""
        if self._issued is None or not instruction.after:
            return 0.0
        return self.cluster.wake_s

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        if not self.capacities:
            return ()
        amount = self.cluster.transfer_cores if len(participants) > 1 else 1.0
        use: dict[str, float] = {}
        for member in participants:
            resource = f"cores:{self.cluster.node(member.rank)}"
            use[resource] = use.get(resource, 0.0) + amount
        return tuple(use.items())

    def _alone(self, rank: int, task: Task) -> float:
        if task.op in MESSAGES:
            if self.fixed:
                return self.experiment.workload.p2p
            return self.cluster.message_seconds(rank, task.peer, task.nbytes)
        if task.op in COLLECTIVES:
            return self.cluster.collective_seconds(task.op.value, task.group, task.nbytes)
        layers = self.layers[task.layers[0] : task.layers[1]]
        if self.fixed:
            return sum(_fixed(task.op, layer) for layer in layers)
        profile = self.cluster.profile
        if profile is not None:
            ops = (Op.RECOMPUTE, Op.FORWARD) if task.op is Op.RECOMPUTE else (task.op,)
            workload, parallel = self.experiment.workload, self.experiment.parallel
            keys = [pass_key(op, layers, workload, parallel) for op in ops]
            for key in keys:
                if key in profile.passes:
                    return profile.passes[key].mean_s
            self.estimated.add(keys[0])
        return sum(self.roofline(task.op, layer) for layer in layers)

    def roofline(self, op: Op, layer: Layer) -> float:
        """Matrix products at their share of peak, everything else at memory speed."""
        device, workload = self.cluster.device, self.experiment.workload
        flops, moved = _work(op, layer, workload, self.experiment.parallel)
        return (
            flops / (device.peak_flops[workload.dtype] * device.matmul_efficiency)
            + moved / (device.memory_bandwidth * device.memory_efficiency)
            + device.launch_s
        )


def _fixed(op: Op, layer: Layer) -> float:
    forward, backward_input, backward_weight = layer.seconds or (0.0, 0.0, 0.0)
    return {
        Op.FORWARD: forward,
        Op.RECOMPUTE: forward,
        Op.BACKWARD: backward_input + backward_weight,
        Op.BACKWARD_INPUT: backward_input,
        Op.BACKWARD_WEIGHT: backward_weight,
    }[op]


def _work(op: Op, layer: Layer, workload: Workload, parallel: Parallel) -> tuple[float, float]:
    """(FLOPs, bytes moved) of an operation on a layer."""
    size = float(layer.parameters * workload.dtype_bytes)
    zeroed = size if parallel.zero > 1 else 0.0  # new gradients for each microbatch
    into_input, again = layer.backward_input_flops + layer.again_flops, layer.again_bytes
    if op in FORWARDS:
        return layer.forward_flops, layer.moved_bytes
    if op is Op.BACKWARD:
        flops = into_input + layer.backward_weight_flops
        return flops, 2 * layer.moved_bytes + again + zeroed
    if op is Op.BACKWARD_INPUT:
        return into_input, layer.moved_bytes + again + zeroed
    if op is Op.BACKWARD_WEIGHT:
        return layer.backward_weight_flops, layer.moved_bytes
    ranks = prod(getattr(parallel, axis) for axis in layer.sums_over)
    shards = min(parallel.shards, ranks)  # experts have fewer ranks to share them
    mine, part = layer.parameters / shards, size / shards
    if op is Op.GRADIENT_NORM:
        return 2.0 * mine, part
    if op is not Op.OPTIMIZER_STEP:
        raise ValueError(f"no cost for {op.value}")
    # Reads parameter, gradient and state, writes all of them; the gradient is zeroed.
    # Of master weights the fp32 ones are read and written, and the copy is written.
    states, clips = OPTIMIZER_STATES[workload.optimizer], workload.clip_norm is not None
    weights = part if workload.has_master_weights else 2.0 * part
    moved = weights + (1.0 + 2.0 * clips) * part + (size if parallel.zero == 1 else part)
    moved += 2.0 * workload.optimizer_bytes * mine
    return (2.0 + 6.0 * states) * mine, moved


def _issued_before(program: Program) -> list[int]:
    """Per instruction uid: instructions the host has to issue for a compute instruction,
    which are itself and the communication queued since the compute before it. A CPU's host
    thread is its compute stream, so this time is compute time."""
    counts = [0] * len(program)
    for instructions in program.ranks:
        queued = 1
        for instruction in instructions:
            if instruction.task.op in COMMUNICATION:
                queued += 1
            else:
                counts[instruction.uid] = queued
                queued = 1
    return counts
