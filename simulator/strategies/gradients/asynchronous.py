"""Workers push gradients to a server and pull its parameters, each at its own pace.

Every step a worker pulls, computes the gradient of its microbatches, and pushes it. The server
serves one request at a time, in an order that only arrival decides, and updates the parameters when
its policy says so: after each push (Dean et al. 2012, "Large Scale Distributed Deep Networks",
Downpour SGD), or as `simulator.program.arrival` says of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.arrival import (
    BoundedStaleness,
    FirstCome,
    FirstN,
    Policy,
    RandomOrder,
    SoftSync,
)
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.gradients.buckets import resident_bytes
from simulator.strategies.lowered import Lowered

QUEUE = "server"
"""The queue in which requests wait, and what the stream is for on which they are accepted."""

PUSHED = TensorName.other("pushed")
"""The server's buffer for what may be pushed, made ready before anybody is known to come."""

SETTINGS = {"bounded-staleness": "staleness_bound", "softsync": "pushes", "first-n": "pushes"}
"""The key that a policy needs."""


def check(experiment: Experiment) -> None:
    """Refuse what asynchronous workers do not do, and keys that mean nothing to their policy.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    needed = SETTINGS.get(parallel.policy) if parallel.is_asynchronous else None
    for key in ("staleness_bound", "pushes"):
        value = getattr(parallel, key)
        if value is not None and key != needed:
            those = " or ".join(repr(name) for name, asks in SETTINGS.items() if asks == key)
            raise ExperimentError(
                f"parallel.{key} = {value}: only for parallel.data_style = 'asynchronous' with "
                f"parallel.policy = {those}"
            )
    if not parallel.is_asynchronous:
        if parallel.policy != "first-come":
            raise ExperimentError(
                f"parallel.policy = {parallel.policy!r}: only for parallel.data_style = "
                f"'asynchronous', not {parallel.data_style!r}"
            )
        return
    if needed and getattr(parallel, needed) is None:
        raise ExperimentError(
            f"parallel.policy = {parallel.policy!r}: needs parallel.{needed}, which is not set"
        )
    asked = "parallel.data_style = 'asynchronous'"
    for key in ("pipeline", "tensor", "context", "expert"):
        if getattr(parallel, key) > 1:
            raise ExperimentError(
                f"parallel.{key} = {getattr(parallel, key)}: with {asked} each worker has the "
                f"whole model; allowed: 1"
            )
    if parallel.num_servers > 1:
        raise ExperimentError(f"parallel.servers = {parallel.servers}: with {asked} allowed: 1")
    refusal = policy_of(experiment).refusal(dict.fromkeys(range(parallel.data), 1))
    if parallel.policy == "softsync":  # counts the pushes of all steps
        refusal = policy_of(experiment).refusal(
            dict.fromkeys(range(parallel.data), experiment.run.horizon)
        )
    if refusal is not None and needed:
        raise ExperimentError(f"parallel.{needed} = {getattr(parallel, needed)}: {refusal}")
    run = experiment.run
    if run.device == "cuda" and run.backend != "gloo":
        raise ExperimentError(
            f"run.backend = {run.backend!r}: with {asked} a server receives from whoever comes, "
            "which NCCL cannot; allowed on GPUs: 'gloo'"
        )


def policy_of(experiment: Experiment) -> Policy:
    """Return the policy of the server."""
    parallel = experiment.parallel
    match parallel.policy:
        case "random-order":
            return RandomOrder(experiment.run.seed)
        case "bounded-staleness":
            return BoundedStaleness(parallel.staleness_bound or 0)
        case "softsync":
            return SoftSync(parallel.pushes or 1)
        case "first-n":
            return FirstN(parallel.pushes or 1)
        case _:
            return FirstCome()


def serve_by_arrival(lowered: Lowered) -> Lowered:
    """Let workers push and pull in every step, and give the server its list.

    Raises:
        ExperimentError: the gradients are in several buckets.
    """
    workers = list(lowered.ranks)
    buckets = lowered.buckets[workers[0]]
    if len(buckets) != 1:
        size = sum(bucket.nbytes for bucket in buckets) / 1e6
        raise ExperimentError(
            f"parallel.bucket_mb = {lowered.experiment.parallel.bucket_mb:g}: the gradients of "
            f"this plan are in {len(buckets)} buckets; with parallel.data_style = 'asynchronous' "
            f"allowed: one bucket, of {size:.4g} MB"
        )
    (bucket,), server = buckets, buckets[0].server
    assert server is not None
    lists = {rank: _worker_list(lowered.lists[rank], bucket) for rank in workers}
    steps = 1 + max(instruction.step for instruction in lists[workers[0]])
    lists[server] = _server_list(lowered.experiment, bucket, workers, steps)
    workload = lowered.experiment.workload
    states = workload.optimizer_bytes // workload.dtype_bytes
    held = {rank: [bucket] for rank in (*workers, server)}
    return replace(
        lowered,
        ranks=[*workers, server],
        stages={**lowered.stages, server: {}},
        buckets=held,
        resident={rank: resident_bytes(mine, states, rank) for rank, mine in held.items()},
        own_lists=lists,
    )


def _worker_list(instructions: Sequence[Instruction], bucket: Bucket) -> list[Instruction]:
    """Return a worker's list with a pull before the passes of each step, and a push behind."""
    assert bucket.server is not None
    message = Task(
        op=Op.SEND,
        stage=0,
        layers=_layers(bucket),
        mnemonic="PUSH",
        stream=Stream.queue(bucket.server),
        peer=bucket.server,
        tensor=bucket.name,
        nbytes=bucket.nbytes,
        queue=QUEUE,
    )
    answer = replace(message, op=Op.RECV, mnemonic="PULL", tensor=bucket.weights)
    computes = [i for i in instructions if i.task.op not in COMMUNICATION]
    first = {i.step: i for i in reversed(computes)}
    last = {i.step: i for i in computes}
    built: list[Instruction] = []
    before: tuple[Instruction, ...] = ()  # the last pass and the push of the step before
    for instruction in instructions:
        step = instruction.step
        if instruction is first[step]:
            pulled = Instruction(answer, -1, before, step)
            instruction.after = (*instruction.after, pulled)
            built.append(pulled)
        built.append(instruction)
        if instruction is last[step]:
            pushed = Instruction(message, -1, [instruction], step)
            before = instruction, pushed
            built.append(pushed)
    return built


def _server_list(
    experiment: Experiment, bucket: Bucket, workers: Sequence[int], steps: int
) -> list[Instruction]:
    """Return the server's list: a pull and a push of every worker in each step are accepted.

    Which step they are of only arrival decides; they are counted as if all went at one pace.
    """
    accept = Task(
        op=Op.ACCEPT,
        stage=0,
        layers=_layers(bucket),
        stream=Stream.along(QUEUE),
        group=tuple(workers),
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        allocates=(Tensor(PUSHED, bucket.nbytes),),
        frees=(PUSHED,),
        queue=QUEUE,
        policy=policy_of(experiment),
    )
    update = Task(
        op=Op.OPTIMIZER_STEP,
        stage=0,
        layers=_layers(bucket),
        tensor=bucket.weights,
        nbytes=bucket.nbytes,
        queue=QUEUE,
    )
    built: list[Instruction] = []
    for step in range(steps):
        for number in range(2 * len(workers)):
            accepted = Instruction(accept, number, built[-1:], step)
            built += [accepted, Instruction(update, number, [accepted], step)]
    return built


def _layers(bucket: Bucket) -> tuple[int, int]:
    return bucket.segments[0][0], bucket.segments[-1][1]
