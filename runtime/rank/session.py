"""What one rank does with an experiment, in a process group that exists already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.calibration.calibrator import Calibrator
from runtime.executor.devices import AllocatorPeak, backend_of
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.pacing import Pacing, combine
from runtime.launch.job import Job
from runtime.measurement.clock import Clock
from runtime.measurement.expert_load import Routing
from runtime.measurement.merge import Measurement, RankRecord, merge, to_json
from runtime.models.batches import microbatch
from runtime.progress import Progress
from simulator.cluster.resolve import resolve
from simulator.engine.costs import CostModel
from simulator.experiment.experiment import Experiment
from simulator.program.program import Program
from simulator.strategies.lowering import lower, model_ranks

Report = Callable[[float, str], None]
"""Called on rank 0 with the share of the work that is done (0 to 1) and what comes next."""


def run_job(
    job: Job, rank: int, device: torch.device, progress: Progress, report: Report
) -> dict[str, Any] | None:
    """Run `job` on this rank; the result, as JSON, is returned on rank 0 (None elsewhere)."""
    experiment = job.experiment
    program = lower(experiment)
    clock = Clock()
    calibrator = None
    programs = [program]
    if job.calibrate:
        wide = not job.measure
        calibrator = Calibrator(experiment, program, rank, device, clock, progress, wide)
        programs += calibrator.transfers.programs
    groups = Groups(programs, experiment.run.timeout_s, backend_of(experiment))
    if calibrator:
        calibrator.begin(groups, lambda share, what: report(0.3 * share, what))
    executor = Executor(
        experiment, program, rank, device, groups, progress, pace_of(experiment, program)
    )
    if job.fault and job.fault[0] == rank:
        executor.fault = (job.fault[1], job.fault[2])
    try:
        measurement = _iterate(job, executor, clock, calibrator, report) if job.measure else None
        if calibrator and not job.measure:
            for number in range(experiment.run.iterations):
                calibrator.round()
                report(0.3 + 0.7 * (number + 1) / experiment.run.iterations, "segment passes")
        profile = calibrator.profile() if calibrator else None
        tensors = _tensors(executor) if job.return_tensors else None
    finally:
        executor.close()
        if calibrator:
            calibrator.close()
    if rank != 0:
        return None
    return {
        "hash": program.hash(),
        "measurement": to_json(measurement) if measurement else None,
        "profile": profile,
        "tensors": tensors,
    }


def pace_of(experiment: Experiment, program: Program) -> Pacing | None:
    """The durations that instructions are stretched to: `unit` always, others by run.pace."""
    if experiment.workload.model != "unit" and experiment.run.pace is None:
        return None
    return Pacing(CostModel(program, experiment, resolve(experiment)).seconds)


def _iterate(
    job: Job, executor: Executor, clock: Clock, calibrator: Calibrator | None, report: Report
) -> Measurement | None:
    experiment, program = job.experiment, executor.program
    run, parallel = experiment.run, experiment.parallel
    mesh = experiment.mesh
    place, replica = mesh.coordinate(executor.rank), mesh.replica(executor.rank)
    posted: list[list[float]] = []
    end: list[list[float]] = []
    memory: list[list[tuple[float, int]]] = []
    losses: list[float] = []
    allocated: list[int] = []
    resident = executor.ledger.resident
    allocator = AllocatorPeak(executor.device, resident)
    first_of_tensor = place["tensor"] == 0  # its ranks route and lose the same
    counted = executor.segments.values() if first_of_tensor else ()
    routing = Routing(experiment, counted)
    total = run.warmup + run.iterations
    begin = 0.3 if calibrator else 0.0
    for number in range(total):
        report(begin + (1 - begin) * number / total, "warm-up" if number < run.warmup else "step")
        if calibrator:
            calibrator.round()
        batches = {
            index: microbatch(
                experiment, number, replica * parallel.microbatches + index, executor.device
            )
            for index in range(parallel.microbatches)
        }
        if number == run.warmup:
            routing.restart()
            if executor.pace:
                fastest: list[Any] = [None] * program.num_ranks
                dist.all_gather_object(fastest, executor.pace.fastest)
                executor.pace.restart(fastest)
        executor.keep_gradients = job.return_tensors and number == total - 1
        executor.batches = batches  # those of the last step are given back before bytes are counted
        allocator.restart()
        origin = clock.common_start()
        executor.step(batches)
        peak = allocator.nbytes()
        loss = torch.zeros(1, dtype=torch.float64)
        for part in executor.losses if first_of_tensor else ():
            loss += part.double().cpu() / (
                parallel.batch_shares * parallel.context * parallel.microbatches
            )
        dist.all_reduce(loss)
        if number >= run.warmup:
            shift = clock.offset - origin
            posted.append([time + shift for time in executor.posted])
            end.append([time + shift for time in executor.end])
            memory.append([(time + shift, change) for time, change in executor.ledger.changes])
            losses.append(float(loss[0]))
            allocated += [] if peak is None else [peak]
    executor.progress.leave()
    record = RankRecord(posted, end, memory, resident, allocated)
    norm, moe = parameters_norm(executor), routing.total()
    first = not any(index for axis, index in place.items() if axis != "pipeline")
    mine = executor.staleness.to_json() if first else []
    paced = executor.pace.report() if executor.pace else None
    everyone: list[Any] = [None] * program.num_ranks
    dist.all_gather_object(everyone, (mine, paced))
    stale = [row for rows, _ in everyone for row in rows]
    pacing = combine(report for _, report in everyone) if paced else None
    records: list[Any] | None = [None] * program.num_ranks if executor.rank == 0 else None
    dist.gather_object(record, records)
    if records is None:
        return None
    timeline, times = merge(program, records)
    peaks = [int(np.median(record.allocated)) for record in records if record.allocated]
    stale.sort(key=lambda row: int(row["stage"]))
    scale = executor.loss_scale
    scaled = {"value": scale.value, "skipped_steps": scale.skipped} if scale.dynamic else None
    return Measurement(timeline, times, losses, norm, stale, moe, scaled, pacing, peaks)


def parameters_norm(executor: Executor) -> float:
    """L2 norm over the whole model, each parameter counted once."""
    square = torch.zeros(1, dtype=torch.float64)
    counted = executor.rank in model_ranks(executor.experiment, 0)
    for parameters in executor.parameters.values() if counted else ():
        square += parameters.shard.double().square().sum().cpu() / parameters.bucket.copies
    dist.all_reduce(square)
    return float(square.sqrt()[0])


def _tensors(executor: Executor) -> dict[str, Any] | None:
    """Parameters and last gradients of every layer range of every rank, put together from the
    shards that each rank sends.
    """
    mine = {
        name: (parameters.shard.double().cpu(), executor.last_gradients[name].double().cpu())
        for name, parameters in executor.parameters.items()
    }
    places = {name: parameters.segments for name, parameters in executor.parameters.items()}
    everyone: list[Any] | None = [None] * executor.program.num_ranks
    if executor.rank != 0:
        everyone = None
    dist.gather_object((mine, places), everyone)
    if everyone is None:
        return None
    tensors: dict[str, Any] = {}
    for rank, buckets in enumerate(executor.program.buckets):
        found = tensors[str(rank)] = {}
        for bucket in buckets:
            parts = [everyone[member][0][bucket.name] for member in bucket.shards or (rank,)]
            whole = [torch.cat(shards) for shards in zip(*parts, strict=True)]
            for (first, last), place in everyone[rank][1][bucket.name].items():
                found[f"{first}:{last}"] = tuple(flat[place].tolist() for flat in whole)
    return tensors
