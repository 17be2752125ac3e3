"""Servers update the parameters of trainers, synchronously.

The gradients of a bucket are reduced to its server, which alone has the optimizer's state; it
steps, and broadcasts the parameters (Li et al. 2014, "Scaling Distributed Machine Learning with
the Parameter Server"; Dean et al. 2012, DistBelief). Both overlap the backward pass of the
segments before: nobody reads the parameters of a bucket between its last backward pass and the
next step. So the result is that of all-reduces, after which every replica updates for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from simulator.experiment.experiment import Experiment
from simulator.experiment.roles import SERVER
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.strategies.gradients.buckets import resident_bytes
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.dataflow import Range
from simulator.units import counted

STREAM = Stream.along("server")
"""The stream on which parameters come back, while more gradients are on their way."""

Key = tuple[tuple[Range, ...], tuple[int, ...]]
"""A bucket whose replicas are equal: its segments, and the ranks that have it."""


def check(experiment: Experiment) -> None:
    """Refuse what servers do not do, and servers where nobody asks for them.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, workload = experiment.parallel, experiment.workload
    asked = f"parallel.data_style = {parallel.data_style!r}"
    if parallel.servers is not None and not parallel.has_servers:
        raise ExperimentError(
            f"parallel.servers = {parallel.servers!r}: only for parallel.data_style = "
            "'parameter-server', 'work-queue', 'asynchronous', 'stale-synchronous' or "
            f"'soft-synchronous', not {parallel.data_style!r}"
        )
    if not parallel.has_servers:
        return
    if not workload.family.has_parameters:
        raise ExperimentError(
            f"{asked}: workload.model = 'unit' has no parameters; allowed: 'all-reduce'"
        )
    if parallel.shares_servers and parallel.is_asynchronous:
        raise ExperimentError(
            f"parallel.servers = 'shared': with {asked} a rank's passes and the updates by what "
            "arrives would take turns on its device in an order that nobody knows beforehand; "
            "allowed: a whole number"
        )
    if parallel.shares_servers and parallel.replicas == 1:
        raise ExperimentError(
            "parallel.servers = 'shared': with one replica there is nobody to share with; allowed: "
            "a whole number, or data, context or expert of 2 or more"
        )
    if parallel.shards_optimizer:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: with {asked} servers have the optimizer's state; "
            "allowed: 0"
        )
    if workload.clip_norm is not None and parallel.is_asynchronous:
        raise ExperimentError(
            f"workload.clip_norm = {workload.clip_norm:g}: with {asked} no rank has the norm of "
            "the whole gradient; allowed: unset"
        )
    if workload.dtype == "fp16" and not parallel.shares_servers:
        raise ExperimentError(
            f"workload.dtype = 'fp16': with {asked} nobody tells trainers that gradients have "
            "overflowed; allowed: fp64, fp32, bf16"
        )


def server_ranks(experiment: Experiment) -> range:
    """Return the global ranks of all servers."""
    if experiment.parallel.shares_servers:
        return range(experiment.world_size)
    return next((role.ranks for role in experiment.roles if role.name == SERVER), range(0))


def choose_servers(lowered: Lowered) -> Lowered:
    """Give every bucket of the trainers a server, so that these have as equal bytes as can be.

    The largest bucket that is left goes to the server with the fewest bytes (Graham 1969,
    longest processing time first).

    Raises:
        ExperimentError: a server would have nothing to do.
    """
    sizes: dict[Key, int] = {}
    having: dict[tuple[Range, ...], set[tuple[int, ...]]] = {}
    for rank in lowered.ranks:
        for bucket in lowered.buckets[rank]:
            sizes[bucket.segments, bucket.replicas] = bucket.nbytes
            having.setdefault(bucket.segments, set()).add(bucket.replicas)
    servers = server_ranks(lowered.experiment)
    if len(servers) > len(sizes):
        raise ExperimentError(
            f"parallel.servers = {len(servers)}: the gradients of this plan are in "
            f"{counted(len(sizes), 'bucket')}, each of one server; allowed: at most "
            f"{len(sizes)}, or a "
            f"parallel.bucket_mb below {lowered.experiment.parallel.bucket_mb:g}"
        )
    chosen = _divided(sizes, servers)
    buckets: dict[int, list[Bucket]] = {}
    for rank in lowered.ranks:
        buckets[rank] = []
        for bucket in lowered.buckets[rank]:
            parts = sorted(having[bucket.segments])
            part = parts.index(bucket.replicas) if len(parts) > 1 else None
            server = chosen[bucket.segments, bucket.replicas]
            buckets[rank].append(replace(bucket, server=server, part=part))
    return holding(lowered, buckets)


def _divided(sizes: Mapping[Key, int], servers: Sequence[int]) -> dict[Key, int]:
    held = dict.fromkeys(servers, 0)
    chosen: dict[Key, int] = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        server = min(servers, key=lambda rank: (held[rank], rank))
        held[server] += sizes[key]
        chosen[key] = server
    return chosen


def holding(lowered: Lowered, buckets: Mapping[int, list[Bucket]]) -> Lowered:
    """Return a copy in which ranks hold these buckets."""
    workload = lowered.experiment.workload
    states = workload.optimizer_bytes // workload.dtype_bytes
    resident = {rank: resident_bytes(mine, states, rank) for rank, mine in buckets.items()}
    return replace(lowered, buckets=dict(buckets), resident=resident)


def server_traffic(bucket: Bucket, backward: Task) -> Iterator[Task]:
    """Yield what follows the last backward pass of a bucket: to its server, and back from it.

    From a server that is one of the trainers it comes back later: see `shared_servers`.
    """
    assert bucket.server is not None
    is_shared = bucket.server in bucket.replicas
    reduce = Task(
        op=Op.REDUCE,
        stage=backward.stage,
        layers=backward.layers,
        segment=backward.segment,
        mnemonic=_mnemonic("REDUCE_GRAD", bucket),
        stream=Stream.along("data"),
        group=bucket.replicas if is_shared else (*bucket.replicas, bucket.server),
        root=bucket.server,
        tensor=bucket.name,
        nbytes=bucket.nbytes,
    )
    yield reduce
    if not is_shared:  # else it comes behind the update, in the same list
        yield broadcast_of(bucket, reduce)


def broadcast_of(bucket: Bucket, reduce: Task) -> Task:
    """Return what brings parameters back, among those that have reduced their gradients."""
    return replace(
        reduce,
        op=Op.BROADCAST,
        mnemonic=_mnemonic("BROADCAST", bucket),
        stream=STREAM,
        tensor=bucket.weights,
    )


def update_of(bucket: Bucket, reduce: Task) -> Task:
    """Return the update of a bucket by its server."""
    return Task(
        op=Op.OPTIMIZER_STEP,
        stage=reduce.stage,
        layers=(bucket.segments[0][0], bucket.segments[-1][1]),
        segment=reduce.segment,
        mnemonic=_mnemonic(Op.OPTIMIZER_STEP.value, bucket),
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        version=0,
    )


def _mnemonic(name: str, bucket: Bucket) -> str:
    """Return the name in labels; a server may have the same bucket of several tensor ranks."""
    return name if bucket.part is None else f"{name}_PART{bucket.part}"


class Served(NamedTuple):
    """A bucket, and the traffic between its trainers and its server."""

    bucket: Bucket
    reduce: Task
    broadcast: Task


def add_servers(lowered: Lowered) -> Lowered:
    """Give the servers their lists: they update each bucket as soon as its gradients are there.

    All queues have the buckets in one order, so nobody waits for a server that waits for another.
    """
    order = _in_order(lowered)
    servers = server_ranks(lowered.experiment)
    served = {rank: [one for one in order if one.bucket.server == rank] for rank in servers}
    buckets = {
        rank: [as_served(one.bucket, lowered) for one in mine] for rank, mine in served.items()
    }
    calls = {rank: _calls(mine) for rank, mine in served.items()}
    lowered = holding(lowered, {**lowered.buckets, **buckets})
    return replace(
        lowered,
        ranks=[*lowered.ranks, *servers],
        stages={**lowered.stages, **{rank: {} for rank in servers}},
        calls={**lowered.calls, **calls},
    )


def as_served(bucket: Bucket, lowered: Lowered) -> Bucket:
    """Return the bucket of trainers as its server has it: once for ranks that share its sums.

    So servers have fewer copies of parameters than the ranks of one model.
    """
    model = lowered.layout.model_ranks(bucket.replicas[0])
    together = len(set(bucket.replicas).intersection(model))
    return replace(bucket, copies=bucket.copies // together)


def _in_order(lowered: Lowered) -> list[Served]:
    """Return all buckets, those first whose gradients are known first.

    What counts is how many passes the trainer has still to do; of equal ones the later stage is
    first. The order is that of every trainer, which matters more than that it is the best one.
    """
    found: list[tuple[tuple[int, int, int, int], Served]] = []
    for rank in lowered.ranks:
        mine = {b.name: b for b in lowered.buckets[rank] if b.replicas[0] == rank}
        calls = lowered.calls[rank]
        for position, call in enumerate(calls):
            tasks = [call.template.entries[number].task for number in call.template.order]
            back = {task.tensor: task for task in tasks if task.op is Op.BROADCAST}
            for place, task in enumerate(tasks):
                if task.op is Op.REDUCE and task.tensor in mine:
                    bucket = mine[task.tensor]
                    when = position - len(calls), -task.stage, place, rank
                    found.append((when, Served(bucket, task, back[bucket.weights])))
    return [served for _, served in sorted(found, key=lambda one: one[0])]


def _calls(served: Sequence[Served]) -> list[Call]:
    """Return the calls of a server: it takes gradients as they come, steps, and sends."""
    reduces = [Call.of_task(one.reduce) for one in served]
    calls = list(reduces)
    for one, reduced in zip(served, reduces, strict=True):
        step = Call.of_task(update_of(one.bucket, one.reduce), arguments=[(reduced, 0)])
        calls += [step, Call.of_task(one.broadcast, arguments=[(step, 0)])]
    return calls
