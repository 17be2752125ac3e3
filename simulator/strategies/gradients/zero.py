"""Sharded data parallelism: every rank of a shard set keeps an equal part of a bucket.

That is a part of the optimizer's state (1), also of its gradients (2), also of its parameters (3)
(Rajbhandari et al. 2020, "ZeRO", section 5).

Stage 1 reduces gradients to shards once a step, stage 2 those of each microbatch, for which
whole gradients exist from its first backward pass to their reduction. Both gather the updated
parameters. Stage 3 gathers parameters before their use and frees them after it, as FSDP does
(Zhao et al. 2023, "PyTorch FSDP", section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from simulator.experiment.experiment import Experiment
from simulator.experiment.hints import divisors_near, nearest_that_works
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.codecs.codec import Encoding
from simulator.program.operations import BACKWARDS, FORWARDS, INPUT_BACKWARDS, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Reference, Template
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.parameter_compression import (
    Gathering,
    encoded,
    parameter_encoding,
)
from simulator.strategies.lowered import Lowered

USES_WEIGHTS = FORWARDS | INPUT_BACKWARDS
STREAM = Stream.along("zero")


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
    given, encoding = lowered.experiment.parallel.prefetch, parameter_encoding(lowered.experiment)
    prefetch = 1 if given is None else given
    return lowered.with_calls(
        lambda rank, calls: shard(calls, lowered.buckets[rank], prefetch, encoding)
    )


def gather_parameters(lowered: Lowered) -> Lowered:
    """Gather, on every rank, what optimizer steps on shards have updated."""
    return lowered.with_calls(lambda rank, calls: gather_updated(calls, lowered.buckets[rank]))


def shard(
    calls: list[Call], buckets: Sequence[Bucket], prefetch: int, encoding: Encoding | None = None
) -> list[Call]:
    """Let gradients (2) and parameters (3) be whole only while they are used."""
    edits = Edits()
    _allocate_gradients(calls, [b for b in buckets if b.shards_gradients], edits)
    sharded = [bucket for bucket in buckets if bucket.shards_parameters]
    leading = _unshard(calls, sharded, prefetch, encoding, edits)
    edits.apply()
    return leading + calls


def gather_updated(calls: list[Call], buckets: Sequence[Bucket]) -> list[Call]:
    """Gather parameters that stay whole (1, 2) after the optimizer step on their shards."""
    gathered = [b for b in buckets if b.shards_optimizer and not b.shards_parameters]
    if not gathered:
        return calls
    forward: dict[tuple[int, int], Task] = {}
    for template in dict.fromkeys(call.template for call in calls):
        for task in (template.entries[number].task for number in template.computes):
            if task.op is Op.FORWARD:
                forward[task.layers] = task
    built: list[Call] = []
    for call in calls:
        built.append(call)
        task = call.template.entries[0].task
        if task.op is Op.OPTIMIZER_STEP:
            first, last = task.layers
            built += [
                Call.of_task(_gather(bucket, forward[bucket.segments[0]], "UNSHARD"))
                for bucket in sorted(gathered, key=lambda bucket: bucket.segments)
                if first <= bucket.segments[0][0] < last
            ]
    return built


def _allocate_gradients(calls: Iterable[Call], buckets: Sequence[Bucket], edits: Edits) -> None:
    """Allocate gradients at the first backward pass of each microbatch; reductions free them.

    That pass waits until all reductions posted before it have ended but the last, and that one,
    too, if it is of the same bucket. So no more than one bucket is held besides those that
    fill, however slow the network is (as in FSDP, ``reduce_scatter_max_input_buffers`` of 1).
    """
    names = {bucket.name for bucket in buckets}
    owner = {segment: bucket for bucket in buckets for segment in bucket.segments}
    begun: set[tuple[TensorName, int]] = set()
    posted: list[
        tuple[TensorName | None, Reference]
    ] = []  # the last two reductions; they end in this order
    relevant: dict[Template, list[tuple[int, Bucket | None]]] = {}  # None: a reduction
    for call in calls:
        template = call.template
        if template not in relevant:
            relevant[template] = [
                (number, None if reduces else owner[task.layers])
                for number in template.order
                for task in [template.entries[number].task]
                if (reduces := task.op is Op.REDUCE_SCATTER and task.tensor in names)
                or (task.op in BACKWARDS and task.layers in owner)
            ]
        for number, bucket in relevant[template]:
            if bucket is None:
                posted = [*posted[-1:], (template.entries[number].task.tensor, (call, number))]
            elif (bucket.name, call.microbatch) not in begun:
                begun.add((bucket.name, call.microbatch))
                edits.allocate(call, number, Tensor(bucket.name, bucket.nbytes))
                if posted and posted[-1][0] == bucket.name:
                    edits.wait(call, number, posted[-1][1])
                elif len(posted) > 1:
                    edits.wait(call, number, posted[0][1])


def _unshard(
    calls: Sequence[Call],
    buckets: Sequence[Bucket],
    prefetch: int,
    encoding: Encoding | None,
    edits: Edits,
) -> list[Call]:
    """Gather parameters `prefetch` compute instructions before those that use them.

    What was encoded is decoded directly before that use. Decoding waits for a gather, so what comes
    behind the same instruction is listed before it: other encodings, and reductions.

    Returns:
        what comes before everything else.
    """
    if not buckets:
        return []
    computes = [(call, number) for call in calls for number in call.template.computes]
    gatherings: dict[tuple[TensorName, tuple[int, int], str], Gathering] = {}
    starting: list[tuple[int, int, Bucket]] = []  # positions of the first use and of the last
    for bucket in buckets:
        starting += [(*held, bucket) for held in _holds(computes, bucket, prefetch)]
    leading: list[Call] = []

    def insert(behind: Reference | None, task: Task, microbatch: int) -> Reference:
        if behind is not None:
            return edits.insert(behind, task, microbatch)
        leading.append(Call.of_task(task, microbatch))
        return leading[-1], 0

    decodings: list[tuple[int, Task, list[Reference]]] = []  # each with its position
    for first, last, bucket in sorted(starting, key=lambda start: start[0]):
        call, number = computes[first]
        use = call.template.entries[number].task
        way = use.op.value if use.op in FORWARDS else "B"
        key = bucket.name, use.layers, way
        if key not in gatherings:
            gatherings[key] = encoded(_gather(bucket, use, f"UNSHARD_{way}"), way, encoding)
        gathering = gatherings[key]
        issued = computes[first - prefetch - 1] if first > prefetch else None
        before = [gathering.encode] if gathering.encode else []
        made = [insert(issued, task, call.microbatch) for task in before]
        come = [insert(issued, task, call.microbatch) for task in gathering.collectives]
        for gather in come if made else ():
            edits.wait(*gather, made[0])
        if gathering.decode:
            decodings.append((first, gathering.decode, come))
        else:
            edits.wait(call, number, come[0])
        edits.free(*computes[last], bucket.whole_weights)
    calls_before = dict(zip(calls[1:], calls, strict=False))
    for first, task, come in decodings:
        call, number = computes[first]
        decode = insert(_entry_before(call, number, calls_before), task, call.microbatch)
        for gather in come:
            edits.wait(*decode, gather)
        edits.wait(call, number, decode)
    return leading


def _entry_before(call: Call, number: int, calls_before: Mapping[Call, Call]) -> Reference | None:
    """Return the entry that is listed directly before another one; None: that is the first."""
    place = call.template.order.index(number)
    if place:
        return call, call.template.order[place - 1]
    if call not in calls_before:
        return None
    return calls_before[call], calls_before[call].template.order[-1]


def _holds(computes: Sequence[Reference], bucket: Bucket, prefetch: int) -> list[tuple[int, int]]:
    """Return from which use to which the whole parameters are held, by position in `computes`.

    They are held through all segments of a pass, and on where they would be gathered again at
    once.
    """
    holds: list[tuple[int, int]] = []
    before: tuple[Op, int] | None = None
    for position, (call, number) in enumerate(computes):
        task = call.template.entries[number].task
        if task.layers not in bucket.segments or task.op not in USES_WEIGHTS:
            continue
        now = task.op, call.microbatch
        if holds and (before == now or position - prefetch <= holds[-1][1] + 1):
            holds[-1] = (holds[-1][0], position)
        else:
            holds.append((position, position))
        before = now
    return holds


def _gather(bucket: Bucket, near: Task, mnemonic: str) -> Task:
    # One for all microbatches, so that a program which holds two copies is refused.
    whole = (Tensor(bucket.whole_weights, bucket.nbytes),) if bucket.shards_parameters else ()
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
