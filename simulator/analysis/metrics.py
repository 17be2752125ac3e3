"""Computes the figures of a timeline: bubble, exposed communication, memory, FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from simulator.analysis.contents import StageContents, contents_of_ranks, model_parameters
from simulator.analysis.rates import rates_of
from simulator.analysis.results import Metrics, ProgramSummary, RankMetrics
from simulator.analysis.step_times import step_times
from simulator.experiment.experiment import Experiment
from simulator.experiment.roles import TRAINER
from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.strategies.gradients.policies import policy_of
from simulator.timeline.moments import in_order
from simulator.timeline.timeline import Floats, Timeline
from simulator.workloads.describe import describe_whole


def union_length(starts: Floats, ends: Floats) -> float:
    """Length of the union of the intervals [starts, ends], in their unit."""
    if not starts.size:
        return 0.0
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    reached = np.concatenate([[starts[0]], np.maximum.accumulate(ends)[:-1]])
    return float(np.maximum(ends - np.maximum(starts, reached), 0.0).sum())


def rank_metrics(timeline: Timeline) -> list[RankMetrics]:
    """Return the figures of each rank.

    Seconds of compute, exposed communication and idleness add up to the iteration time.
    """
    total = timeline.iteration_time
    compute = timeline.is_compute
    in_flight = peak_inflight(timeline)
    rows = []
    spans = timeline.spans_of_rows()
    for row, (rank, mine) in enumerate(zip(timeline.members, spans, strict=True)):
        work = mine[compute[mine]]
        busy = union_length(timeline.start[work], timeline.end[work])
        either = union_length(timeline.start[mine], timeline.end[mine])
        rows.append(
            RankMetrics(
                rank=rank,
                compute_s=busy,
                exposed_comm_s=max(either - busy, 0.0),
                idle_s=max(total - either, 0.0),
                first_start_s=float(timeline.start[mine].min()) if mine.size else 0.0,
                last_end_s=float(timeline.end[mine].max()) if mine.size else 0.0,
                peak_memory_bytes=timeline.memory[row].peak if timeline.memory else 0,
                peak_inflight_microbatches=in_flight[row],
                peak_memory_parts=timeline.memory[row].peak_parts if timeline.memory else None,
            )
        )
    return rows


def peak_inflight(timeline: Timeline) -> list[int]:
    """Return for each rank the most stage activations held at once.

    One is held from the start of a stage's forward pass to the end of the pass that frees it
    (`B`, or `W` where the backward is split).
    """
    forward = timeline.of_kind(lambda kind: kind.op is Op.FORWARD)
    backward = timeline.of_kind(lambda kind: kind.op in LAST_BACKWARDS)
    stages = np.array([kind.stage for kind in timeline.kinds], dtype=np.int64)
    peaks = []
    for mine in timeline.spans_of_rows():
        times = []
        for chosen, column, reduce in (
            (mine[forward[mine]], timeline.start, np.minimum),
            (mine[backward[mine]], timeline.end, np.maximum),
        ):
            keys = (stages[timeline.kind[chosen]] << 40) + (timeline.step[chosen] << 20)
            keys += timeline.microbatch[chosen]
            _, inverse = np.unique(keys, return_inverse=True)
            extreme = np.full(
                inverse.max() + 1 if inverse.size else 0, np.inf if reduce is np.minimum else -1.0
            )
            reduce.at(extreme, inverse, column[chosen])
            times.append(extreme)
        moments = np.concatenate(times)
        changes = np.concatenate([np.ones(times[0].size), -np.ones(times[1].size)])
        order, _ = in_order(moments, changes)
        held = np.cumsum(changes[order])
        peaks.append(int(held.max()) if held.size else 0)
    return peaks


def done_by(timeline: Timeline, row: int) -> int:
    """Return how many microbatches a row of a timeline did: those that it had work for."""
    mine = timeline.of_kind(lambda kind: kind.op is Op.FORWARD) & (timeline.rank == row)
    mine[timeline.idle] = False
    return len(np.unique((timeline.step[mine] << 20) + timeline.microbatch[mine]))


def bubble(timeline: Timeline) -> tuple[float, float]:
    """Return the bubble fraction and the bubble ratio of all ranks, those not shown included.

    The fraction is the time the compute stream is not computing ÷ (ranks × iteration
    time); the ratio divides the same time by the time it computes.
    """
    compute = timeline.is_compute
    busy = math.fsum(
        count * union_length(timeline.start[mine], timeline.end[mine])
        for count, spans in zip(timeline.counts, timeline.spans_of_rows(), strict=True)
        for mine in (spans[compute[spans]],)
    )
    whole = sum(timeline.counts) * timeline.iteration_time
    if whole <= 0 or busy <= 0:
        return 0.0, 0.0
    idle = max(whole - busy, 0.0)  # a sum over passes without a gap may exceed the time by rounding
    return idle / whole, idle / busy


def model_flops(experiment: Experiment) -> float:
    """Return the FLOPs of a training step over all ranks, without recomputation."""
    parallel, whole = experiment.parallel, describe_whole(experiment)
    return sum(layer.flops for layer in whole) * parallel.batch_shares * parallel.microbatches


def recomputed_flops(experiment: Experiment) -> float:
    """Return the FLOPs of forward passes, or parts of them, that run again in a step."""
    parallel, layers = experiment.parallel, describe_whole(experiment)
    replicas = parallel.batch_shares * parallel.microbatches
    full = parallel.recompute == "full"
    return sum(layer.recomputed_flops + full * layer.forward_flops for layer in layers) * replicas


def metrics_of(
    timeline: Timeline,
    experiment: Experiment,
    peak_flops: float | None,
    hash_: str,
    dropped: Set[int] = frozenset(),
) -> Metrics:
    """Return the figures of `timeline`.

    Args:
        timeline: of the training steps of `experiment`.
        peak_flops: of one device in the workload's dtype, FLOP/s; None: MFU is None.
        hash_: of the program.
        dropped: spans of pushes that came too late to count.
    """
    world_size = experiment.world_size
    lengths = np.bincount(timeline.rank, minlength=timeline.num_ranks)
    total = timeline.iteration_time
    fraction, ratio = bubble(timeline)
    workload = experiment.workload
    timed = workload.family.has_parameters and total > 0
    # Rates are of the cluster's own time.
    unpaced = total / timeline.horizon / (experiment.run.pace or 1.0)
    mfu = hfu = None
    if timed and peak_flops:
        possible, needed = unpaced * world_size * peak_flops, model_flops(experiment)
        mfu, hfu = needed / possible, (needed + recomputed_flops(experiment)) / possible
    parallel = experiment.parallel
    steps = step_times(timeline, parallel.step_period, parallel.local_after or 0)
    bounded = parallel.is_asynchronous and policy_of(experiment).bounds_lead
    rates = rates_of(
        timeline, steps, experiment.global_batch, parallel.batch_shares, dropped, bounded
    )
    contents = contents_of_ranks(experiment)
    rows = rank_metrics(timeline)
    if experiment.parallel.hands_out_work:
        rows = [replace(row, microbatches=done_by(timeline, n)) for n, row in enumerate(rows)]
    tokens = experiment.global_batch * workload.tokens_per_sample
    found = Metrics(
        program=ProgramSummary(hash_, world_size, int(lengths @ np.array(timeline.counts))),
        iteration_time_s=total,
        bubble_fraction=fraction,
        bubble_ratio=ratio,
        mfu=mfu,
        hfu=hfu,
        tokens_per_s=tokens / unpaced if timed else None,
        token="image" if workload.family.data == "images" else "token",
        ranks=[_with_contents(row, experiment, contents) for row in rows],
        parameters=model_parameters(experiment),
        steps=steps,
        rates=rates and rates.scaled(1.0 / (experiment.run.pace or 1.0)) if timed else None,
    )
    return found.over_iterations(timeline.statistics)


def _with_contents(
    row: RankMetrics, experiment: Experiment, contents: Sequence[tuple[StageContents, ...]]
) -> RankMetrics:
    """Return the figures of a rank with its role, and what it has of the model.

    Args:
        row: the figures of a rank.
        experiment: says its role.
        contents: what each pipeline rank has.
    """
    role, coordinate = experiment.role_of(row.rank)
    if role.name == TRAINER:
        stages = contents[coordinate["pipeline"]]
        return replace(row, stages=stages, parameters=sum(stage.parameters for stage in stages))
    held = row.peak_memory_parts.parameters if row.peak_memory_parts else 0
    return replace(row, role=role.name, parameters=held // experiment.workload.dtype_bytes)
