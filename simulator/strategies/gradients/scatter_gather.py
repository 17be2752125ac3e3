"""One rank has the model, its optimizer and the batch; the others only compute for it.

Every step rank 0 sends a share of the batch to each of the others, all compute outputs, which come
back to rank 0. There the loss of all shares is computed, and its gradients with respect to the
outputs are sent out. The gradients of the parameters are summed on rank 0, which updates them and
sends them to the others (torch's `DataParallel`; Li et al. 2020, "PyTorch Distributed", section
2.2, on why it was replaced). The microbatches of all shares are numbered together, since rank 0
has all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.program.tensors import activation
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.parameter_server import holding
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.checks import updates_within_a_step
from simulator.strategies.schedules.passes import Pass, backward, forward
from simulator.strategies.stages.messages import lower_passes
from simulator.strategies.stages.pass_columns import PassColumns
from simulator.strategies.stages.stage import Stage
from simulator.workloads.describe import describe

ROOT = 0
"""The rank that has the model."""


def check(experiment: Experiment) -> None:
    """Refuse what a model on one rank is not combined with.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    if not parallel.is_scattered:
        return
    asked = "parallel.data_style = 'scatter-gather'"
    for key in ("pipeline", "tensor", "context", "expert", "virtual_stages"):
        if getattr(parallel, key) > 1:
            raise _refused(experiment, key, f"with {asked} every rank computes the whole model", 1)
    if parallel.data < 2:
        raise _refused(experiment, "data", f"with {asked} there is nobody to send to", "2 or more")
    if parallel.zero:
        raise _refused(experiment, "zero", f"with {asked} rank 0 has the optimizer", 0)
    if updates_within_a_step(experiment):
        raise _refused(
            experiment, "schedule", "updates within a step", f"with {asked} synchronous schedules"
        )
    loss = describe(experiment)[-1]
    if not experiment.workload.family.has_parameters or loss.parameters:
        raise ExperimentError(
            f"workload.model = {experiment.workload.model!r}: with {asked} rank 0 computes the "
            "loss of what the others put out, so it must be a layer of its own; allowed: 'mlp'"
        )


def _refused(experiment: Experiment, key: str, reason: str, allowed: Any) -> ExperimentError:
    value = getattr(experiment.parallel, key)
    return ExperimentError(f"parallel.{key} = {value!r}: {reason}; allowed: {allowed}")


def cut_off_loss(lowered: Lowered) -> Lowered:
    """Make the loss a stage of its own, behind that of all other layers."""
    last = len(lowered.layers) - 1
    return replace(lowered, ranges=[(0, last), (last, last + 1)], placement=[0, 0])


def gather_on_root(lowered: Lowered) -> Lowered:
    """Let rank 0 update all buckets."""
    buckets = {
        rank: [replace(bucket, server=ROOT) for bucket in held]
        for rank, held in lowered.buckets.items()
    }
    return holding(lowered, buckets)


def scatter_passes(lowered: Lowered) -> Lowered:
    """Give every rank the passes of its shares, and rank 0 the losses and the messages, too.

    A share has a stage number of its own for the model, 2 × its rank, and the next one for its
    loss, so that messages find each other as they do in a pipeline.
    """
    shares, count = list(lowered.ranks), lowered.experiment.parallel.microbatches
    model, loss = lowered.stages[ROOT].values()
    orders = {rank: _order(rank, shares, count) for rank in shares}
    columns = {rank: PassColumns(order, 2 * len(shares)) for rank, order in orders.items()}
    stages = {rank: {2 * rank: _stage(model, rank, None, ROOT)} for rank in shares}
    for rank in shares:
        stages[ROOT][2 * rank + 1] = _stage(loss, ROOT, rank, None)
    incoming = {
        rank: [
            numbers
            for source in shares
            for target, numbers in columns[source].sent(source, stages[source]).items()
            if target == rank
        ]
        for rank in shares
    }
    calls = {rank: lower_passes(columns[rank], stages[rank], incoming[rank]) for rank in shares}
    nbytes = _batch_bytes(lowered.experiment)
    calls = {rank: _with_batches(rank, shares, calls[rank], count, nbytes) for rank in shares}
    return replace(lowered, calls=calls)


def _order(rank: int, shares: Sequence[int], count: int) -> list[Pass]:
    """Return the passes of a rank: rank 0 computes all losses before the first goes back."""
    order: list[Pass] = []
    for microbatch in range(count):
        losses = [(2 * one + 1, one * count + microbatch) for one in shares if rank == ROOT]
        own = 2 * rank, rank * count + microbatch
        order += [forward(*own), *(forward(*one) for one in losses)]
        order += [*(backward(*one) for one in losses), backward(*own)]
    return order


def _stage(like: Stage, rank: int, previous: int | None, following: int | None) -> Stage:
    return Stage(
        like.index,
        like.pieces,
        previous,
        following,
        like.groups,
        rank,
        like.rerun,
        like.loss_weight,
    )


def _batch_bytes(experiment: Experiment) -> int:
    """Return the bytes of the input of one microbatch: vectors as wide as those of the model."""
    workload = experiment.workload
    return experiment.microbatch_size * workload.sequence * workload.hidden * workload.dtype_bytes


def _with_batches(
    rank: int, shares: Sequence[int], calls: Sequence[Call], count: int, nbytes: int
) -> list[Call]:
    """Return the calls with the messages that bring the input of every forward pass.

    Rank 0 sends a microbatch to all the others before it begins with its own; they post the
    receive a pass ahead, as those of gradients, and before these.
    """
    before: dict[Call, list[Call]] = {}
    edits = Edits()
    sends = {peer: _message(Op.SEND, peer, nbytes) for peer in shares if peer != ROOT}
    receive = _message(Op.RECV, ROOT, nbytes)
    for position, call in enumerate(calls):
        for number in call.template.computes[:1]:
            task = call.template.entries[number].task
            if task.op is not Op.FORWARD or task.layers[0]:
                continue
            if rank == ROOT:
                before[call] = [
                    Call.of_task(send, peer * count + call.microbatch)
                    for peer, send in sends.items()
                ]
            else:
                came = Call.of_task(receive, call.microbatch)
                before[calls[max(position - 1, 0)]] = [came]
                edits.wait(call, number, (came, 0))
    edits.apply()
    return [one for call in calls for one in (*before.get(call, ()), call)]


def _message(op: Op, peer: int, nbytes: int) -> Task:
    return Task(
        op=op,
        stage=0,
        mnemonic=f"{op.value}_BATCH",
        stream=Stream.send(peer) if op is Op.SEND else Stream.recv(peer),
        peer=peer,
        tensor=activation(0),
        nbytes=nbytes,
    )
