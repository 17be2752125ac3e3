"""The steps of one rank, and what all ranks together report of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

from runtime.executor.ahead_executor import AheadExecutor
from runtime.executor.context import RankContext
from runtime.executor.cuda_streams import CudaStreams
from runtime.executor.executor import Executor
from runtime.executor.faults import Fault
from runtime.executor.groups import Groups
from runtime.executor.host_streams import HostStreams
from runtime.executor.list_executor import ListExecutor
from runtime.executor.observers import Observer, StalenessObserver
from runtime.executor.pacing import Pacing, combine
from runtime.executor.rank import Rank
from runtime.launch.job import Job
from runtime.measurement.clock import Clock
from runtime.measurement.consensus import ConsensusObserver
from runtime.measurement.expert_load import ExpertLoadMeter
from runtime.measurement.merge import Allocated, Measurement, decisions_of, merge
from runtime.rank.final_state import parameters_norm
from runtime.rank.input import batches_of
from runtime.rank.recorder import StepRecorder
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.experiment.host_choice import runs_ahead
from simulator.program.arrival_staleness import arrival_staleness
from simulator.program.instruction import Instruction


class MeasuredRun:
    """The steps of one rank; every rank must make the same calls together.

    Args:
        job: what the launching process asks for.
        rank: whose steps they are.
        groups: communicators of the program.
        clock: common to all ranks.
    """

    def __init__(self, job: Job, rank: Rank, groups: Groups, clock: Clock):
        self._rank, self._returns_tensors = rank, job.return_tensors
        self.context = RankContext(rank, groups)
        self._staleness, self._pacing = StalenessObserver(self.context), pacing_of(self.context)
        observers: list[Observer] = [self._staleness]
        if self._pacing is not None:
            observers.append(self._pacing)
        self._consensus = ConsensusObserver(self.context)
        if rank.experiment.parallel.is_local:
            observers.append(self._consensus)
        if job.fault and job.fault[0] == rank.number:
            observers.append(Fault(*job.fault[1:], self._pacing))
        self._executor = executor_of(self.context, observers)
        self._recorder = StepRecorder(self._executor, clock)
        # Tensor-parallel ranks route the same tokens: the first of them counts.
        counted = self.context.segments.values() if rank.coordinate["tensor"] == 0 else ()
        self._expert_load = ExpertLoadMeter(rank.experiment, counted)

    def run(self, before_step: Callable[[float, str], None]) -> Measurement | None:
        """Run all steps; returns what was measured on rank 0, None elsewhere.

        Args:
            before_step: called with the share of the steps that is done and what comes next.
        """
        keys = self._rank.experiment.run
        total = keys.warmup + keys.iterations
        for number in range(total):
            before_step(number / total, "warm-up" if number < keys.warmup else "step")
            batches = batches_of(self._rank, number)
            if number == keys.warmup:
                self._end_warm_up()
            self.context.keep_gradients = self._returns_tensors and number == total - 1
            self._consensus.is_armed = number == total - 1
            self._recorder.step(batches, keep=number >= keys.warmup)
        self._rank.progress.leave()
        return self._measurement()

    def close(self) -> None:
        """End the executor's threads."""
        self._executor.close()

    def _end_warm_up(self) -> None:
        """Let what is summed over steps begin here."""
        self._expert_load.restart()
        if self._pacing is not None:
            self._pacing.end_warm_up(self._everyones(self._pacing.fastest))

    def _measurement(self) -> Measurement | None:
        record = self._recorder.record
        norm, experts = parameters_norm(self.context), self._expert_load.total()
        staleness = self._everyones(self._staleness_rows())
        paced = self._everyones(self._pacing.report()) if self._pacing is not None else None
        is_local = self._rank.experiment.parallel.is_local
        distances = self._consensus.distances() if is_local else None
        first = self._rank.number == 0
        records: list[Any] | None = [None] * self._rank.program.num_ranks if first else None
        dist.gather_object(record, records)
        if records is None:
            return None
        program = self._rank.program
        timeline, times = merge(program, records)
        rows = sorted(
            (row for rows in staleness for row in rows), key=lambda row: int(row["stage"])
        )
        return Measurement(
            timeline,
            times,
            self._recorder.losses,
            norm,
            [*rows, *(row.to_json() for row in arrival_staleness(program, timeline.decisions))],
            experts,
            self.context.loss_scale.to_json(),
            combine(paced) if paced else None,
            [_median_peaks(record.allocated) for record in records if record.allocated],
            decisions_of(program, records),
            distances,
        )

    def _staleness_rows(self) -> list[dict[str, Any]]:
        """Return the staleness of this rank's stages, if it is the first that has them."""
        others = (at for axis, at in self._rank.coordinate.items() if axis != "pipeline")
        if any(others):
            return []
        return [stage.to_json() for stage in self._staleness.staleness.stages()]

    def _everyones(self, mine: Any) -> list[Any]:
        """Return what every rank gives, in order of ranks."""
        everyone: list[Any] = [None] * self._rank.program.num_ranks
        dist.all_gather_object(everyone, mine)
        return everyone


def executor_of(context: RankContext, observers: Sequence[Observer]) -> ListExecutor:
    """Return what walks the list of a rank, as ``run.host`` says.

    Raises:
        ExperimentError: see `runs_ahead`.
    """
    rank = context.rank
    if not runs_ahead(rank.experiment, rank.program):
        return Executor(context, observers)
    device = rank.device
    streams = HostStreams() if device.type == "cpu" else CudaStreams(device)
    return AheadExecutor(context, observers, streams)


def pacing_of(context: RankContext) -> Pacing | None:
    """Return what stretches instructions: of `unit` always, of others if run.pace is set."""
    rank, experiment = context.rank, context.rank.experiment
    if experiment.workload.family.has_parameters and experiment.run.pace is None:
        return None
    costs = costs_of(rank.program, experiment, resolve(experiment))

    def seconds(instruction: Instruction) -> float:
        """Return the modelled time of what arrival has made of an instruction."""
        executed = context.executed(instruction)
        return 0.0 if executed is None else costs.seconds(executed)

    return Pacing(seconds)


def _median_peaks(steps: list[Allocated]) -> Allocated:
    return Allocated(*(int(np.median(peaks)) for peaks in zip(*steps, strict=True)))
