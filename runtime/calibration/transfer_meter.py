"""Measures transfers between ranks, and the host's time, by running small programs.

They run through the executor itself, so that what is measured is what a program pays. Each
transfer runs by itself; between two of them every rank computes for a moment, as in a plan,
because threads that slept meanwhile are slow to wake. Then it runs beside matrix products
that keep every rank busy: threads that wait for a core make a transfer longer, and the
products slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.calibration.busy_work import BusyWork
from runtime.calibration.transfer_cases import Runs, TransferCase, TransferCases
from runtime.executor.context import RankContext
from runtime.executor.executor import Executor
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.executor.streams import synchronize
from runtime.measurement.clock import Clock
from runtime.measurement.merge import RankRecord, aligned
from runtime.models.dtypes import TORCH_DTYPE
from simulator.cluster.timing import Points, Timing, middle_mean
from simulator.experiment.host_choice import runs_ahead
from simulator.program.meetings import CARRIED
from simulator.program.operation_columns import Payload
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.timeline.timeline import Floats, MemoryParts

ROUND_S = 0.3
PASS_S = 0.001
"""Seconds of matrix products between two transfers, in the place of a pass."""

Columns = tuple[Floats, Floats, Floats]
"""posted, start and end of every instruction in every run."""


@dataclass
class Transfers:
    """The part of a `simulator.cluster.profile.Profile` that is measured by transfers."""

    messages: Points = field(default_factory=list)
    collectives: dict[Op, dict[int, Points]] = field(default_factory=dict)
    remote_messages: Points = field(default_factory=list)
    remote_collectives: dict[Op, dict[int, Points]] = field(default_factory=dict)
    narrow_collectives: dict[str, dict[Op, dict[int, Points]]] = field(default_factory=dict)
    wake_s: float = 0.0
    wake_collective_s: float | None = None
    wake_busy_s: float | None = None
    issue_s: float = 0.0
    queue_s: float = 0.0
    transfer_cores: float = 0.0
    transfer_loss: float | None = None


class TransferMeter:
    """The measurement of what `program` sends; all ranks must make the same calls together.

    Args:
        wide: measure other sizes, too, so that the profile serves other experiments.
        beside: measure transfers beside `BusyWork`, too.
        cores: cores of a host.
    """

    def __init__(self, rank: Rank, clock: Clock, wide: bool, beside: bool, cores: int):
        self.rank, self.clock = rank, clock
        cases = TransferCases(rank.experiment, rank.program, wide, cores, clock.hosts)
        self.hosts, self.transfers = cases.hosts, cases.transfers
        self.cases = [*self.hosts, *self.transfers]
        self.beside = beside and rank.program.num_ranks > 1
        self._busy_work = BusyWork(rank.device, TORCH_DTYPE[rank.experiment.workload.dtype])
        self._usual: dict[tuple[Op | None, int, int], float] = {}
        self._next = 0
        # Calibration waits for its instructions, so ranks meet before each launch of NCCL. Where
        # hosts run ahead they do not, and what that takes is no part of a transfer.
        self._without_meetings = runs_ahead(rank.experiment, rank.program)

    @property
    def programs(self) -> list[Program]:
        """The programs that will be run; their process groups must exist."""
        return [case.program for case in self.cases]

    # Measuring -----------------------------------------------------------------------

    def begin(self, groups: Groups, report: Callable[[float, str], None]) -> None:
        """Run every case both ways, after a run to get warm.

        Args:
            groups: the process groups of `programs`.
            report: called with the share done, 0 to 1, and the current case.
        """
        for number, case in enumerate(self.cases):
            report(number / len(self.cases), case.name)
            context = RankContext(replace(self.rank, program=case.program), groups)
            case.executor = Executor(context)
            self._run(case, Runs())
            self._run_both_ways(case)
        recorded = self._recorded(self.transfers, _alone)
        for case, columns in zip(self.transfers, recorded, strict=True):
            key, seconds = (case.op, case.size, case.nbytes), _timing(case, *columns).mean_s
            self._usual[key] = max(self._usual.get(key, 0.0), seconds)  # on a host, between hosts

    def usual_seconds(self, op: Op, size: int, nbytes: int) -> float:
        """Return how long a transfer of the program takes on idle cores; 0 if it was not measured.

        `runtime.executor.null_groups.NullGroups` sleeps as long.
        """
        return self._usual.get((op, size, nbytes), 0.0)

    def round(self) -> None:
        """Run the next few cases once more."""
        begin = self.clock.common_start()
        for _ in self.cases:
            self._run_both_ways(self.cases[self._next % len(self.cases)])
            self._next += 1
            if self.clock.common_start() > begin + ROUND_S:
                break

    def _run_both_ways(self, case: TransferCase) -> None:
        self._run(case, case.alone)
        if self.beside and case.op is not None:
            self._run(case, case.busy)

    def _run(self, case: TransferCase, runs: Runs) -> None:
        assert case.executor is not None
        executor = case.executor
        dtype = TORCH_DTYPE[case.dtype or self.rank.experiment.workload.dtype]
        for instruction in executor.instructions:
            task = instruction.task
            nbytes = task.nbytes
            if task.op.row.payload is Payload.GATHERED:
                nbytes = task.allocates[0].nbytes // len(task.group)
            if task.sources:
                values = torch.zeros(
                    max(nbytes // dtype.itemsize, 1), dtype=dtype, device=self.rank.device
                )
                executor.context.supply(task.sources[0], instruction.batch, values)
        synchronize(self.rank.device)  # tensors are filled on another stream than they are sent on
        origin = self.clock.common_start()
        cpu, begin = time.process_time(), time.perf_counter()
        if runs is case.busy:
            self._busy_work.beside(lambda: executor.step({}))
        else:
            for instruction in executor.walk({}):
                spent = time.process_time()
                self._busy_work.compute(PASS_S)
                lasted = executor.prolong(instruction)
                # In a ping-pong the other rank then computes as long, and this one waits.
                begin += 2 * lasted if case.op is Op.SEND else lasted
                cpu += time.process_time() - spent
        if runs is case.alone and executor.instructions:
            case.cpu_s += time.process_time() - cpu
            case.wall_s += time.perf_counter() - begin
        executor.context.forget()
        self.rank.progress.leave()
        shift = self.clock.offset - origin
        runs.posted.append([time + shift for time in executor.posted])
        begun = executor.met if self._without_meetings else executor.posted
        runs.begun.append([time + shift for time in begun])
        runs.end.append([time + shift for time in executor.end])

    def close(self) -> None:
        """Release what the executors hold."""
        for case in self.cases:
            if case.executor is not None:
                case.executor.close()

    # Result --------------------------------------------------------------------------

    def found(self) -> Transfers:
        """Return what was measured; it is the same on every rank."""
        transfers = self.transfers
        host, queueing = map(_between_passes, self.hosts, self._recorded(self.hosts, _alone))
        found = Transfers(issue_s=float(np.median(host)))
        found.queue_s = max(middle_mean(queueing) - found.issue_s, 0.0)
        if self.rank.device.type == "cpu":  # threads that wait for a device spin
            found.transfer_cores = self._cores()
        alone = self._recorded(transfers, _alone)
        timings = [_timing(case, *columns) for case, columns in zip(transfers, alone, strict=True)]
        ping_pong = next((n for n, case in enumerate(transfers) if case.op is Op.SEND), None)
        if ping_pong is not None:
            found.wake_s = _wake_seconds(transfers[ping_pong], *alone[ping_pong])
        woken = [
            _wake_seconds(case, *columns)
            for case, columns in zip(transfers, alone, strict=True)
            if case.op in CARRIED
        ]
        found.wake_collective_s = float(np.median(woken)) if woken else None
        if self.beside and ping_pong is not None:
            found.transfer_loss = self._busy_work.loss()
            busy = self._recorded(transfers, _busy)
            found.wake_busy_s = _wake_seconds(transfers[ping_pong], *busy[ping_pong])
            for number, case in enumerate(transfers):
                busy_s = _timing(case, *busy[number]).mean_s
                least = timings[number].mean_s
                timings[number] = replace(timings[number], busy_s=max(busy_s, least))
        for case, timing in zip(transfers, timings, strict=True):
            assert case.op is not None
            if case.op is Op.SEND:
                messages = found.remote_messages if case.remote else found.messages
                messages.append((case.nbytes, timing))
            else:
                collectives = found.remote_collectives if case.remote else found.collectives
                if case.dtype:
                    collectives = found.narrow_collectives.setdefault(case.dtype, {})
                sizes = collectives.setdefault(case.op, {})
                sizes.setdefault(case.size, []).append((case.nbytes, timing))
        return found

    def _recorded(
        self, cases: list[TransferCase], pick: Callable[[TransferCase], Runs]
    ) -> list[Columns]:
        """Gather the picked runs of all ranks, per case."""
        mine = list(map(pick, cases))
        everyone: list[Any] = [None] * self.rank.program.num_ranks
        dist.all_gather_object(everyone, mine)
        return [
            _columns(case.program, ranks) for case, *ranks in zip(cases, *everyone, strict=True)
        ]

    def _cores(self) -> float:
        """Return the share of a core that a transfer occupies per rank: CPU time ÷ wall time."""
        sent = [case for case in self.cases if case.op is not None]
        spent = [sum(case.cpu_s for case in sent), sum(case.wall_s for case in sent)]
        total = torch.tensor(spent, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total[0] / total[1]) if total[1] > 0 else 0.0


def _columns(program: Program, ranks: list[Runs]) -> Columns:
    """Return the times of all ranks: an instruction starts when the last participant has begun."""
    _, start, end = aligned(
        program, [RankRecord(runs.begun, runs.end, [], MemoryParts()) for runs in ranks]
    )
    return np.concatenate([np.array(runs.posted) for runs in ranks], axis=1), start, end


def _alone(case: TransferCase) -> Runs:
    return case.alone


def _busy(case: TransferCase) -> Runs:
    return case.busy


def _between_passes(case: TransferCase, columns: Columns) -> list[float]:
    """Return rank 0's seconds from the end of each pass to the post of the next."""
    posted, _, end = columns
    passes = [i.uid for i in case.program.ranks[0] if i.task.op is Op.OPTIMIZER_STEP]
    return list(map(float, (posted[:, passes[1:]] - end[:, passes[:-1]]).ravel()))


def _timing(case: TransferCase, posted: Floats, start: Floats, end: Floats) -> Timing:
    """Return the durations of the case's transfers."""
    ended = [i.uid for i in case.program if i.task.op not in (Op.SEND, Op.OPTIMIZER_STEP)]
    return Timing.of((end - start)[:, ended].ravel().tolist())


def _wake_seconds(case: TransferCase, posted: Floats, start: Floats, end: Floats) -> float:
    """Return the mean delay from an end to what waited for it.

    These are a transfer's end and the pass that waited for it, and that pass's end and the
    transfer that waited for it.
    """
    waited = [(i.uid, i.after[0].uid) for i in case.program if i.after]
    later, before = zip(*waited, strict=True)
    return max(middle_mean((posted[:, later] - end[:, before]).ravel().tolist()), 0.0)
