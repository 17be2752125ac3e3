"""Replicas update by their own gradients, and average their parameters every few steps.

Local SGD (Stich 2019, "Local SGD Converges Fast and Communicates Little", Algorithm 1); post-local
SGD, in which the first steps are synchronous (Lin et al. 2020, "Don't Use Large Mini-Batches, Use
Local SGD", section 3). The state of the optimizer (momentum, Adam) stays with its replica and is
not averaged. With a period of 1 and plain SGD, that is the synchronous method: the mean of updated
parameters is an update by the mean gradient.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.program.tensors import Tensor, TensorName, snapshot_of
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.diloco import outer_step, with_outer_state
from simulator.strategies.gradients.fragments import fragments_of, sent_at
from simulator.strategies.gradients.replicas import check_replicas, exchanged_bytes
from simulator.strategies.gradients.step_calls import StepCalls
from simulator.strategies.lowered import Lowered

STYLES = {"sync_period": ("local-sgd", "diloco"), "local_after": ("local-sgd",)}
"""The styles that read a key."""


def check(experiment: Experiment) -> None:
    """Refuse what replicas that differ cannot do, and periods that do not fit the program.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, horizon = experiment.parallel, experiment.run.horizon
    for key, styles in STYLES.items():
        if getattr(parallel, key) is not None and parallel.data_style not in styles:
            raise ExperimentError(
                f"parallel.{key} = {getattr(parallel, key)}: only for parallel.data_style = "
                f"{' or '.join(map(repr, styles))}, not {parallel.data_style!r}"
            )
    if parallel.data_style not in STYLES["sync_period"]:
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
            f"allowed: what divides run.horizon{first}: {', '.join(map(str, fitting))}; or "
            f"run.horizon = {before - (before - horizon) // period * period}"
        )


def average_parameters(lowered: Lowered) -> Lowered:
    """Average the parameters of all replicas at the end of every period.

    In the synchronous steps before the first period their gradients are averaged instead. With
    "diloco" an outer optimizer makes a step of the difference, and fragments of the model are
    averaged at steps of their own, if there are several, beside the steps that follow.
    """
    experiment = lowered.experiment
    parallel, horizon = experiment.parallel, experiment.run.horizon
    before, period = parallel.local_after or 0, parallel.sync_period
    assert period is not None
    has_outer, late = parallel.data_style == "diloco", parallel.overlap_steps or 0

    def change(rank: int, calls: list[Call]) -> list[Call]:
        group = lowered.mesh.group(rank, "data")
        mine, edits = StepCalls(calls, parallel.microbatches), Edits()
        buckets = sorted(lowered.buckets[rank], key=lambda bucket: bucket.segments)
        fragments = fragments_of([bucket.nbytes for bucket in buckets], experiment)
        fragment_of = dict(zip(buckets, fragments, strict=True))
        for bucket in lowered.buckets[rank]:
            call, number = mine.last_gradient(0, bucket)
            last = call.template.entries[number].task
            nbytes = exchanged_bytes(bucket, experiment)
            gradients = _mean("REDUCE_GRAD", last, group, bucket.name, bucket.nbytes)
            parameters = _mean("AVERAGE", last, group, bucket.weights, nbytes)
            copied = snapshot_of(bucket.weights) if late else None
            outer = outer_step(parameters, experiment, copied) if has_outer else None
            copy = _copy(parameters, copied) if copied else None
            if copied is not None:
                parameters = replace(parameters, tensor=copied, sources=(copied,))
            for step in range(before):
                known = mine.last_gradient(step, bucket)
                reduced = edits.insert(known, gradients, None)
                edits.wait(*reduced, known)
                for update in mine.updates(step, bucket):
                    edits.wait(update, 0, reduced)
            for step in range(before + sent_at(fragment_of[bucket], experiment), horizon, period):
                update, applied = mine.updates(step, bucket)[-1], step + late
                known, used = (update, 0), mine.first_use(applied + 1, bucket)
                if copy is not None:
                    known = mine.insert(copy, step, [known], behind=update)
                if len(group) > 1:
                    known = mine.insert(parameters, step, [known], behind=update)
                if outer is not None:
                    first = None if used is None else used[0]
                    waits = [known, (mine.updates(applied, bucket)[-1], 0)] if late else [known]
                    mine.insert(outer, applied, waits, before=first)
                elif used is not None:
                    edits.wait(*used, known)
        edits.apply()
        return mine.calls()

    lowered = lowered.with_calls(change)
    if not has_outer:
        return lowered
    resident = {
        rank: with_outer_state(held, lowered.buckets[rank], experiment)
        for rank, held in lowered.resident.items()
    }
    return replace(lowered, resident=resident)


def _copy(average: Task, copied: TensorName) -> Task:
    """Return what copies the parameters that are averaged, for an average beside updates."""
    return replace(
        average,
        op=Op.SNAPSHOT,
        mnemonic="",
        stream=COMPUTE_STREAM,
        group=(),
        reduction="sum",
        allocates=(Tensor(copied, average.nbytes),),
    )


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
