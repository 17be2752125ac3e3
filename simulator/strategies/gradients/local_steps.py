"""Replicas update by their own gradients, and average their parameters every few steps.

Local SGD (Stich 2019, "Local SGD Converges Fast and Communicates Little", Algorithm 1); post-local
SGD, in which the first steps are synchronous (Lin et al. 2020, "Don't Use Large Mini-Batches, Use
Local SGD", section 3). The state of the optimizer (momentum, Adam) stays with its replica and is
not averaged. With a period of 1 and plain SGD, that is the synchronous method: the mean of updated
parameters is an update by the mean gradient.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.program.tensors import TensorName
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.step_calls import StepCalls
from simulator.strategies.lowered import Lowered
from simulator.strategies.schedules.checks import updates_within_a_step

KEYS = ("sync_period", "local_after")


def check(experiment: Experiment) -> None:
    """Refuse what replicas that differ cannot do, and periods that do not fit the program.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, horizon = experiment.parallel, experiment.run.horizon
    if parallel.data_style != "local-sgd":
        for key in KEYS:
            if getattr(parallel, key) is not None:
                raise ExperimentError(
                    f"parallel.{key} = {getattr(parallel, key)}: only for parallel.data_style = "
                    f"'local-sgd', not {parallel.data_style!r}"
                )
        return
    check_replicas(experiment)
    asked = f"parallel.data_style = {parallel.data_style!r}"
    period, before = parallel.sync_period, parallel.local_after or 0
    if period is None:
        raise ExperimentError(f"{asked}: needs parallel.sync_period, which is not set")
    if before and experiment.workload.dtype == "fp16":
        raise ExperimentError(
            f"parallel.local_after = {before}: with workload.dtype = 'fp16' replicas have loss "
            "scales of their own, so their gradients cannot be summed; allowed: 0"
        )
    if before >= horizon:
        raise ExperimentError(
            f"parallel.local_after = {before}: leaves no local step of run.horizon = {horizon}; "
            f"allowed: 0 to {horizon - 1}"
        )
    if (horizon - before) % period:
        first = f" - parallel.local_after = {horizon - before}" if before else f" = {horizon}"
        fitting = [n for n in range(1, horizon - before + 1) if (horizon - before) % n == 0]
        raise ExperimentError(
            f"parallel.sync_period = {period}: replicas would differ at the end of the program; "
            f"allowed: what divides run.horizon{first}: {', '.join(map(str, fitting))}"
        )


def check_replicas(experiment: Experiment) -> None:
    """Refuse plans whose replicas cannot have parameters of their own.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    asked = f"parallel.data_style = {parallel.data_style!r}"
    if not experiment.workload.family.has_parameters:
        raise ExperimentError(
            f"{asked}: workload.model = {experiment.workload.model!r} has no parameters; "
            "allowed: 'all-reduce'"
        )
    if parallel.axis_size("data") == 1:
        raise ExperimentError(
            f"parallel.data = {parallel.data}: with {asked} there is one replica, and nothing to "
            "exchange; allowed: more"
        )
    if parallel.shards_optimizer:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: replicas share what is equal in all of them, and "
            f"with {asked} nothing is; allowed: 0"
        )
    if updates_within_a_step(experiment):
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: passes of several versions of the "
            f"parameters are under way when {asked} changes them; allowed: synchronous schedules"
        )


def exchanged_bytes(bucket: Bucket, experiment: Experiment) -> int:
    """Return the bytes of parameters as replicas exchange them: of master weights, if any."""
    workload = experiment.workload
    size = 4 if workload.has_master_weights else workload.dtype_bytes
    return bucket.nbytes // workload.dtype_bytes * size


def average_parameters(lowered: Lowered) -> Lowered:
    """Average the parameters of all replicas at the end of every period.

    In the synchronous steps before the first period their gradients are averaged instead.
    """
    experiment = lowered.experiment
    before, period = experiment.parallel.local_after or 0, experiment.parallel.sync_period
    assert period is not None
    steps = range(before + period - 1, experiment.run.horizon, period)

    def change(rank: int, calls: list[Call]) -> list[Call]:
        group = lowered.mesh.group(rank, "data")
        mine, edits = StepCalls(calls, experiment.parallel.microbatches), Edits()
        for bucket in lowered.buckets[rank]:
            call, number = mine.last_gradient(0, bucket)
            last = call.template.entries[number].task
            nbytes = exchanged_bytes(bucket, experiment)
            gradients = _mean("REDUCE_GRAD", last, group, bucket.name, bucket.nbytes)
            parameters = _mean("AVERAGE", last, group, bucket.weights, nbytes)
            for step in range(before):
                known = mine.last_gradient(step, bucket)
                reduced = edits.insert(known, gradients, None)
                edits.wait(*reduced, known)
                for update in mine.updates(step, bucket):
                    edits.wait(update, 0, reduced)
            for step in steps:
                update = mine.updates(step, bucket)[-1]
                average = mine.insert(parameters, step, [(update, 0)], behind=update)
                used = mine.first_use(step + 1, bucket)
                if used is not None:
                    edits.wait(*used, average)
        edits.apply()
        return mine.calls()

    return lowered.with_calls(change)


def _mean(name: str, last: Task, group: tuple[int, ...], tensor: TensorName, nbytes: int) -> Task:
    """Return the mean of a tensor over the replicas; `last` makes the gradients of its bucket."""
    return Task(
        op=Op.ALL_REDUCE,
        stage=last.stage,
        layers=last.layers,
        segment=last.segment,
        mnemonic=name,
        stream=Stream.along("data"),
        group=group,
        tensor=tensor,
        nbytes=nbytes,
        reduction="mean",
    )
