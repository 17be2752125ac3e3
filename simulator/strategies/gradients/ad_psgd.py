"""Replicas average with one random neighbour at a time, each at its own pace.

Asynchronous decentralised parallel SGD (Lian et al. 2018, "Asynchronous Decentralized Parallel
Stochastic Gradient Descent", Algorithm 1): a replica computes a gradient, averages its parameters
with those of a neighbour, and applies the gradient to the average. The graph is bipartite: the
active half of the replicas asks, the passive half answers, so that nobody waits in a circle
(section 3.2 there).

A passive replica answers beside its passes, so these use a copy of the parameters, which is taken
before each step. What changes its parameters, or reads them, is served one by one in its queue:
pushes and pulls of others, and the copy and the update of its own, which are local requests.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, Op
from simulator.program.pairwise import Pairwise
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.gradients.own_pace import check_backend, check_whole_models
from simulator.strategies.gradients.replicas import check_replicas
from simulator.strategies.gradients.topologies import topology_named
from simulator.strategies.lowered import Lowered

PAIR = "pair"
"""The name of queues, before the rank that answers, and of the stream on which it does."""

PUSHED = TensorName.other("pushed")
"""The buffer for the parameters of a neighbour, made ready before anybody is known to come."""


def check(experiment: Experiment) -> None:
    """Refuse what replicas that average in pairs cannot do, and graphs that are not bipartite.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, dtype = experiment.parallel, experiment.workload.dtype
    if not parallel.averages_pairs:
        return
    check_replicas(experiment)
    asked = f"parallel.data_style = {parallel.data_style!r}"
    check_whole_models(experiment, "each replica is one rank")
    if experiment.workload.has_master_weights:
        raise ExperimentError(
            f"workload.dtype = {dtype!r}: with {asked} parameters are averaged as they are used; "
            "allowed: fp64, fp32"
        )
    check_backend(experiment, "a replica serves whoever comes")
    if parallel.topology is None:
        raise ExperimentError(f"{asked}: needs parallel.topology, which is not set")
    active_replicas(experiment)


def active_replicas(experiment: Experiment) -> set[int]:
    """Return the half of the replicas that asks; no two of them, and of the others, are neighbours.

    Raises:
        ExperimentError: there is an odd circle of neighbours.
    """
    parallel = experiment.parallel
    neighbours = neighbours_of(experiment)
    is_active = {0: True}
    to_follow = [0]
    while to_follow:
        one = to_follow.pop()
        for other in neighbours[one]:
            if other not in is_active:
                is_active[other] = not is_active[one]
                to_follow.append(other)
            elif is_active[other] == is_active[one]:
                raise ExperimentError(
                    f"parallel.topology = {parallel.topology!r}: neighbours of {parallel.data} "
                    f"replicas form odd circles, one of them with replicas {min(one, other)} and "
                    f"{max(one, other)}, so no half asks and the other answers; allowed: "
                    "bipartite graphs, such as 'ring' of an even number"
                )
    return {replica for replica, active in is_active.items() if active}


def neighbours_of(experiment: Experiment) -> list[dict[int, float]]:
    """Return, by replica, its neighbours, with the weights by which it chooses among them."""
    parallel = experiment.parallel
    assert parallel.topology is not None
    topology = topology_named(parallel.topology, parallel.data)
    found: list[dict[int, float]] = [{} for _ in range(parallel.data)]
    for step in range(len(topology.taken)):
        for one in range(parallel.data):
            for other, weight in topology.row(one, step).items():
                if other != one:
                    found[one][other] = found[one].get(other, 0.0) + weight
                    found[other].setdefault(one, 0.0)
    return found


def partner_of(replica: int, step: int, experiment: Experiment) -> int:
    """Return the neighbour with whom an active replica averages in a step of the program."""
    neighbours = neighbours_of(experiment)[replica]
    drawn = random.Random(f"{experiment.run.seed} {replica} {step}")
    weights = list(neighbours.values())
    return drawn.choices(list(neighbours), weights if any(weights) else None)[0]


def average_pairs(lowered: Lowered) -> Lowered:
    """Let active replicas ask a neighbour in each step, and passive ones answer."""
    experiment = lowered.experiment
    active, horizon = active_replicas(experiment), experiment.run.horizon
    partners = {
        rank: [partner_of(rank, step, experiment) for step in range(horizon)] for rank in active
    }
    asked = [partner for chosen in partners.values() for partner in chosen]
    buckets = {rank: [_together(mine)] for rank, mine in lowered.buckets.items()}
    lists: dict[int, list[Instruction]] = {}
    for rank, instructions in lowered.lists.items():
        (bucket,) = buckets[rank]
        if rank in active:
            lists[rank] = _active_list(instructions, bucket, partners[rank])
        else:
            group = tuple(sorted({rank, *(r for r in active if rank in partners[r])}))
            count = 2 * (horizon + asked.count(rank))
            lists[rank] = _passive_list(instructions, bucket, rank, group, count)
    resident = {
        rank: held if rank in active else _with_copy(held, buckets[rank][0])
        for rank, held in lowered.resident.items()
    }
    return replace(lowered, buckets=buckets, resident=resident, own_lists=lists)


def _together(buckets: Sequence[Bucket]) -> Bucket:
    """Return all buckets of a replica as one, so that all of it is averaged at once."""
    segments = tuple(sorted(segment for bucket in buckets for segment in bucket.segments))
    return replace(buckets[0], segments=segments, nbytes=sum(b.nbytes for b in buckets))


def _with_copy(held: dict[str, int], bucket: Bucket) -> dict[str, int]:
    """Return what a rank holds throughout, with the parameters besides those that passes use."""
    return {**held, "optimizer": held.get("optimizer", 0) + bucket.nbytes}


def _message(op: Op, name: str, bucket: Bucket) -> Task:
    return Task(
        op=op,
        stage=0,
        layers=(bucket.segments[0][0], bucket.segments[-1][1]),
        mnemonic=name,
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
    )


def _active_list(
    instructions: Sequence[Instruction], bucket: Bucket, partners: Sequence[int]
) -> list[Instruction]:
    """Return the list of a replica that asks: before each update it averages with a neighbour."""
    built: list[Instruction] = []
    tasks: dict[int, tuple[Task, Task]] = {}
    before: list[Instruction] = []
    for one in instructions:
        if one.task.op is Op.OPTIMIZER_STEP:
            peer = partners[one.step]
            if peer not in tasks:
                push = replace(
                    _message(Op.SEND, "PUSH", bucket),
                    peer=peer,
                    queue=f"{PAIR} {peer}",
                    stream=Stream.queue(peer),
                )
                tasks[peer] = push, replace(push, op=Op.RECV, mnemonic="PULL")
            push, pull = tasks[peer]
            last = next(i for i in reversed(built) if i.task.op not in COMMUNICATION)
            pushed = Instruction(push, -1, [last, *before], one.step)
            pulled = Instruction(pull, -1, [last, pushed], one.step)
            built += [pushed, pulled]
            one.after = (*one.after, pulled)
            before = [pulled]
        built.append(one)
    return built


def _passive_list(
    instructions: Sequence[Instruction],
    bucket: Bucket,
    rank: int,
    group: tuple[int, ...],
    count: int,
) -> list[Instruction]:
    """Return the list of a replica that answers, beside its passes, so many requests.

    Of these, two a step are its own: to copy its parameters, and to update them.
    """
    queue = f"{PAIR} {rank}"
    accept = replace(
        _message(Op.ACCEPT, "", bucket),
        stream=Stream.along(PAIR),
        group=group,
        allocates=(Tensor(PUSHED, bucket.nbytes),),
        frees=(PUSHED,),
        queue=queue,
        policy=Pairwise(),
    )
    copy = _message(Op.SNAPSHOT, "", bucket)
    local = replace(copy, peer=rank, queue=queue)
    updates: dict[int, Task] = {}
    horizon = 1 + max(one.step for one in instructions)
    built: list[Instruction] = []
    for number in range(count):
        step, place = number * horizon // count, number
        built.append(Instruction(accept, place, built[-1:], step))
    accepts, begun = list(built), -1
    for one in instructions:
        if one.step > begun:
            begun = one.step
            built.append(Instruction(local, -1, (), one.step))
        if one.task.op is Op.OPTIMIZER_STEP:
            task = replace(one.task, peer=rank, queue=queue)
            one.task = updates.setdefault(id(one.task), task)
        built.append(one)
    built.append(Instruction(replace(copy, mnemonic="LAST"), -1, accepts[-1:], horizon - 1))
    return built
