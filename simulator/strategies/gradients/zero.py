"""Sharded data parallelism: every rank of a shard set keeps an equal part of a bucket.

That is a part of the optimizer's state (1), also of its gradients (2), also of its parameters (3)
(Rajbhandari et al. 2020, "ZeRO", section 5).

Stage 1 reduces gradients to shards once a step, stage 2 those of each microbatch, for which
whole gradients exist from its first backward pass to their reduction. Both gather the updated
parameters. Stage 3 gathers parameters before their use and frees them after it, as FSDP does
(Zhao et al. 2023, "PyTorch FSDP", section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.hints import divisors_near, nearest_that_works
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.operations import BACKWARDS, COMPUTE_STREAM, FORWARDS, INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.tensors import Tensor
from simulator.strategies.lowered import Lowered

USES_WEIGHTS = FORWARDS | INPUT_BACKWARDS
STREAM = "zero"


def check(experiment: Experiment) -> None:
    """Refuse what cannot be sharded.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    for key, least in (("zero_group", 1), ("prefetch", 3)):
        value = getattr(parallel, key)
        if value is not None and parallel.zero < least:
            allowed = "3" if least == 3 else "1, 2 or 3"
            raise ExperimentError(
                f"parallel.{key} = {value}: only for parallel.zero = {allowed}, not {parallel.zero}"
            )
    if not parallel.zero:
        return
    if not experiment.workload.family.has_parameters:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: workload.model = 'unit' has no parameters; "
            "allowed: 0"
        )
    if parallel.replicas == 1:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: with one replica there is nobody to share with; "
            "allowed: 0, or data, context or expert of 2 or more"
        )
    size, most = parallel.shards, parallel.replicas
    if size == 1 or most % size:
        candidates = [n for n in divisors_near(most, size) if n > 1]
        hint = nearest_that_works(experiment, "parallel", "zero_group", candidates)
        raise ExperimentError(
            f"parallel.zero_group = {size}: must be 2 or more and divide the replicas, "
            f"{' × '.join(parallel.replica_axes)} = {most}; "
            f"{hint}"
        )


def shard_tensors(lowered: Lowered) -> Lowered:
    """Let gradients (2) and parameters (3) of every rank be whole only while they are used."""
    given = lowered.experiment.parallel.prefetch
    prefetch = 1 if given is None else given
    return lowered.with_lists(
        lambda rank, instructions: shard(instructions, lowered.buckets[rank], prefetch)
    )


def gather_parameters(lowered: Lowered) -> Lowered:
    """Gather, on every rank, what optimizer steps on shards have updated."""
    return lowered.with_lists(
        lambda rank, instructions: gather_updated(instructions, lowered.buckets[rank])
    )


def shard(
    instructions: list[Instruction], buckets: Sequence[Bucket], prefetch: int
) -> list[Instruction]:
    """Let gradients (2) and parameters (3) be whole only while they are used."""
    if not any(bucket.shards_gradients for bucket in buckets):
        return instructions
    variants = Variants()
    _allocate_gradients(instructions, [b for b in buckets if b.shards_gradients], variants)
    return _unshard(instructions, [b for b in buckets if b.shards_parameters], prefetch, variants)


def gather_updated(instructions: list[Instruction], buckets: Sequence[Bucket]) -> list[Instruction]:
    """Gather parameters that stay whole (1, 2) after the optimizer step on their shards."""
    gathered = [b for b in buckets if b.shards_optimizer and not b.shards_parameters]
    if not gathered:
        return instructions
    forward = {i.task.layers: i.task for i in instructions if i.task.op is Op.FORWARD}
    built: list[Instruction] = []
    for instruction in instructions:
        built.append(instruction)
        if instruction.task.op is Op.OPTIMIZER_STEP:
            first, last = instruction.task.layers
            built += [
                Instruction(
                    _gather(bucket, forward[bucket.segments[0]], "UNSHARD"), -1, [instruction]
                )
                for bucket in sorted(gathered, key=lambda bucket: bucket.segments)
                if first <= bucket.segments[0][0] < last
            ]
    return built


class Variants:
    """Tasks that allocate or free more than their original: one for all microbatches."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, Tensor | str], tuple[Task, Task]] = {}

    def give(self, instruction: Instruction, more: Tensor | str) -> None:
        """Let a tensor be allocated, or one of that name be freed, by an instruction."""
        task = instruction.task
        key = id(task), more
        if key not in self._made:
            if isinstance(more, Tensor):
                changed = replace(task, allocates=(*task.allocates, more))
            else:
                changed = replace(task, frees=(*task.frees, more))
            self._made[key] = task, changed  # keeps the task, and so its identity
        instruction.task = self._made[key][1]


def _allocate_gradients(
    instructions: Iterable[Instruction], buckets: Sequence[Bucket], variants: Variants
) -> None:
    """Allocate gradients at the first backward pass of each microbatch; reductions free them.

    That pass waits until all reductions posted before it have ended but the last, and that one,
    too, if it is of the same bucket. So no more than one bucket is held besides those that
    fill, however slow the network is (as in FSDP, ``reduce_scatter_max_input_buffers`` of 1).
    """
    names = {bucket.name for bucket in buckets}
    owner = {segment: bucket for bucket in buckets for segment in bucket.segments}
    begun: set[tuple[str, int]] = set()
    posted: list[Instruction] = []  # reductions; they end in this order
    for instruction in instructions:
        task = instruction.task
        if task.op is Op.REDUCE_SCATTER and task.tensor in names:
            posted.append(instruction)
        bucket = owner.get(task.layers)
        if bucket is None or task.op not in BACKWARDS:
            continue
        key = bucket.name, instruction.microbatch
        if key not in begun:
            begun.add(key)
            variants.give(instruction, Tensor(bucket.name, bucket.nbytes))
            if posted and posted[-1].task.tensor == bucket.name:
                instruction.after = (*instruction.after, posted[-1])
            else:
                instruction.after = (*instruction.after, *posted[-2:-1])


def _unshard(
    instructions: list[Instruction], buckets: Sequence[Bucket], prefetch: int, variants: Variants
) -> list[Instruction]:
    """Gather parameters `prefetch` compute instructions before those that use them."""
    computes = [i for i in instructions if i.task.stream == COMPUTE_STREAM]
    tasks: dict[tuple[str, int], Task] = {}
    starting: list[tuple[int, Instruction]] = []  # position of the first use, gather
    for bucket in buckets:
        for first, last in _holds(computes, bucket, prefetch):
            use = computes[first]
            key = bucket.name, id(use.task)
            if key not in tasks:
                way = use.task.op.value if use.task.op in FORWARDS else "B"
                tasks[key] = _gather(bucket, use.task, f"UNSHARD_{way}")
            issued = max(first - prefetch, 0)
            gather = Instruction(tasks[key], use.microbatch, computes[issued - 1 : issued])
            use.after = (*use.after, gather)
            starting.append((first, gather))
            variants.give(computes[last], _whole(bucket))
    behind: dict[Instruction | None, list[Instruction]] = {}
    for _, gather in sorted(starting, key=lambda start: start[0]):
        behind.setdefault(gather.after[0] if gather.after else None, []).append(gather)
    built = behind.get(None, [])
    for instruction in instructions:
        built.append(instruction)
        built += behind.get(instruction, [])
    return built


def _holds(computes: Sequence[Instruction], bucket: Bucket, prefetch: int) -> list[tuple[int, int]]:
    """Return from which use to which the whole parameters are held, by position in `computes`.

    They are held through all segments of a pass, and on where they would be gathered again at
    once.
    """
    positions = [
        position
        for position, instruction in enumerate(computes)
        if instruction.task.layers in bucket.segments and instruction.task.op in USES_WEIGHTS
    ]
    holds: list[tuple[int, int]] = []
    for position in positions:
        if holds:
            first, last = holds[-1]
            before, now = computes[last], computes[position]
            same_pass = (before.task.op, before.microbatch) == (now.task.op, now.microbatch)
            if same_pass or position - prefetch <= last + 1:
                holds[-1] = (first, position)
                continue
        holds.append((position, position))
    return holds


def _whole(bucket: Bucket) -> str:
    """Return the name of the gathered parameters.

    It is one for all microbatches, so that a program which holds two copies is refused.
    """
    return f"{bucket.weights}@whole"


def _gather(bucket: Bucket, near: Task, mnemonic: str) -> Task:
    whole = (Tensor(_whole(bucket), bucket.nbytes),) if bucket.shards_parameters else ()
    return Task(
        op=Op.ALL_GATHER,
        stage=near.stage,
        layers=near.layers,
        segment=near.segment,
        mnemonic=mnemonic,
        stream=STREAM,
        group=bucket.shards,
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        allocates=whole,
    )
