"""Workers push gradients to servers and pull their parameters, each at its own pace.

Every step a worker pulls, computes the gradient of its microbatches, and pushes it. A server
serves one request at a time, in an order that only arrival decides, and updates the parameters when
its policy says so: after each push (Dean et al. 2012, "Large Scale Distributed Deep Networks",
Downpour SGD), or as `simulator.program.arrival` says of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.arrival import Policy
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.gradients.buckets import resident_bytes
from simulator.strategies.gradients.own_pace import check_backend, check_whole_models
from simulator.strategies.gradients.policies import POLICIES, policy_of
from simulator.strategies.lowered import Lowered

QUEUE = "server"
"""The queue in which requests wait, and what the stream is for on which they are accepted."""

PUSHED = TensorName.other("pushed")
"""The server's buffer for what may be pushed, made ready before anybody is known to come."""


def check(experiment: Experiment) -> None:
    """Refuse what asynchronous workers do not do.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    if not parallel.is_asynchronous:
        return
    asked = f"parallel.data_style = {parallel.data_style!r}"
    check_whole_models(experiment, "each worker has the whole model")
    if parallel.num_servers > 1 and not policy_of(experiment).is_lasting:
        by = f"parallel.policy = {parallel.policy!r}" if parallel.policy not in POLICIES else asked
        raise ExperimentError(
            f"parallel.servers = {parallel.servers}: with {by} workers that wait at one server "
            "for others could be waited for at the next, for ever; allowed: 1"
        )
    check_backend(experiment, "a server receives from whoever comes")


def serve_by_arrival(lowered: Lowered) -> Lowered:
    """Let workers push and pull in every step, and give the servers their lists."""
    workers = list(lowered.ranks)
    shares = _shares(lowered.buckets[workers[0]])
    lists = {rank: _worker_list(lowered.lists[rank], shares) for rank in workers}
    steps = 1 + max(instruction.step for instruction in lists[workers[0]])
    for share in shares:
        lists[share.server] = _server_list(
            share, policy_of(lowered.experiment, share.number), workers, steps
        )
    workload = lowered.experiment.workload
    states = workload.optimizer_bytes // workload.dtype_bytes
    everything = [share.bucket for share in shares]
    held = dict.fromkeys(workers, everything) | {s.server: [s.bucket] for s in shares}
    return replace(
        lowered,
        ranks=[*workers, *(share.server for share in shares)],
        stages={**lowered.stages, **{share.server: {} for share in shares}},
        buckets=held,
        resident={rank: resident_bytes(mine, states, rank) for rank, mine in held.items()},
        own_lists=lists,
    )


class Share(NamedTuple):
    """The parameters that one server has of the model.

    Attributes:
        server: its rank.
        number: which of the servers it is.
        bucket: all its buckets as one: they travel together, so that what a worker pulls is of
            one version and what it pushes goes into one update.
        queue: the queue in which requests for them wait.
        is_all: no other server has any.
    """

    server: int
    number: int
    bucket: Bucket
    queue: str
    is_all: bool


def _shares(buckets: Sequence[Bucket]) -> list[Share]:
    """Return what each server has, servers in order of rank."""
    of_server: dict[int, list[Bucket]] = {}
    for bucket in buckets:
        assert bucket.server is not None
        of_server.setdefault(bucket.server, []).append(bucket)
    shares = []
    for number, (server, mine) in enumerate(sorted(of_server.items())):
        segments = tuple(sorted(segment for bucket in mine for segment in bucket.segments))
        nbytes = sum(bucket.nbytes for bucket in mine)
        together = replace(mine[0], segments=segments, nbytes=nbytes)
        is_all = len(of_server) == 1
        queue = QUEUE if is_all else f"{QUEUE} {number}"
        shares.append(Share(server, number, together, queue, is_all))
    return shares


def _worker_list(instructions: Sequence[Instruction], shares: Sequence[Share]) -> list[Instruction]:
    """Return a worker's list with its pulls and pushes.

    Before the passes of each step it pulls from all servers at once; the first pass that uses
    what one has waits for that one. A push comes right behind the last pass of the step that
    gives gradients to its server.
    """
    computes = [i for i in instructions if i.task.op not in COMMUNICATION]
    begins = {i.step: i for i in reversed(computes)}
    ends = {i.step: i for i in computes}
    pulls: dict[Instruction, list[Instruction]] = {}
    pushes: dict[Instruction, list[Instruction]] = {}
    for share in shares:
        mine = [i for i in computes if i.task.layers in share.bucket.segments]
        first, last = {i.step: i for i in reversed(mine)}, {i.step: i for i in mine}
        push = _request(share)
        pull = replace(push, op=Op.RECV, mnemonic="PULL", tensor=share.bucket.weights)
        before: list[Instruction] = []  # the last pass and the push of the step before
        for step in sorted(begins):
            pulled = Instruction(pull, -1, before, step)
            first[step].after = (*first[step].after, pulled)
            pulls.setdefault(begins[step], []).append(pulled)
            pushed = Instruction(push, -1, [last[step]], step)
            pushes.setdefault(last[step], []).append(pushed)
            before = [ends[step], pushed]
    built: list[Instruction] = []
    for instruction in instructions:
        built += [*pulls.get(instruction, ()), instruction, *pushes.get(instruction, ())]
    return built


def _request(share: Share) -> Task:
    """Return the task of a push."""
    return Task(
        op=Op.SEND,
        stage=0,
        layers=_layers(share.bucket),
        segment=_segment(share),
        mnemonic="PUSH",
        stream=Stream.queue(share.server),
        peer=share.server,
        tensor=share.bucket.name,
        nbytes=share.bucket.nbytes,
        queue=share.queue,
    )


def _server_list(
    share: Share, policy: Policy, workers: Sequence[int], steps: int
) -> list[Instruction]:
    """Return a server's list: a pull and a push of every worker in each step are accepted.

    Which step they are of only arrival decides; they are counted as if all went at one pace.
    """
    bucket = share.bucket
    accept = Task(
        op=Op.ACCEPT,
        stage=0,
        layers=_layers(bucket),
        segment=_segment(share),
        stream=Stream.along(QUEUE),
        group=tuple(workers),
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        allocates=(Tensor(PUSHED, bucket.nbytes),),
        frees=(PUSHED,),
        queue=share.queue,
        policy=policy,
    )
    update = Task(
        op=Op.OPTIMIZER_STEP,
        stage=0,
        layers=_layers(bucket),
        segment=_segment(share),
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        queue=share.queue,
    )
    built: list[Instruction] = []
    for step in range(steps):
        for number in range(2 * len(workers)):
            accepted = Instruction(accept, number, built[-1:], step)
            built += [accepted, Instruction(update, number, [accepted], step)]
    return built


def _layers(bucket: Bucket) -> tuple[int, int]:
    return bucket.segments[0][0], bucket.segments[-1][1]


def _segment(share: Share) -> int:
    """Return the number in the labels of what one of several servers does: which one it is."""
    return -1 if share.is_all else share.number
