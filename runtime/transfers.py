"""What transfers between ranks cost, and the host beside them: measured by running small
programs through the executor itself, so that what is measured is what a program pays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.clock import Clock
from runtime.data import TORCH_DTYPE
from runtime.executor import Executor
from runtime.groups import Groups
from runtime.measure import RankRecord, merge
from runtime.progress import Progress
from simulator.experiment import Experiment
from simulator.program import COLLECTIVES, Instruction, Op, Program, Task, Tensor
from simulator.timeline import Timeline

SIZES = (8, 1 << 14, 1 << 18, 1 << 21, 1 << 24)


@dataclass
class Transfers:
    """Seconds by bytes of a message and, per operation and group size, of a collective;
    `issue_s` and `wake_s` as in `simulator.profile.Profile`."""

    messages: dict[int, float] = field(default_factory=dict)
    collectives: dict[tuple[Op, int], dict[int, float]] = field(default_factory=dict)
    wake_s: float = 0.0
    issue_s: float | None = None


_known: dict[tuple[int, str, str], Transfers] = {}
"""By number of ranks, device and dtype (a reduction adds). They belong to the machine, not to
the experiment: what these processes measured for one job serves the next (all of its ranks
know the same)."""


class TransferMeter:
    """Measures what `program` will send, as far as these processes have not yet; every rank
    must make the same calls together."""

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        rank: int,
        device: torch.device,
        clock: Clock,
        progress: Progress,
    ):
        self.experiment, self.program, self.rank = experiment, program, rank
        self.device, self.clock, self.progress = device, clock, progress
        key = (program.num_ranks, device.type, experiment.workload.dtype)
        self.found = _known.setdefault(key, Transfers())

    def measure(self, report: Callable[[float, str], None]) -> Transfers:
        """Messages, collectives and host overhead."""
        if self.found.issue_s is None:
            self.found.issue_s = self._host_overhead()
        if self.program.num_ranks < 2:
            return self.found
        sent = {i.task.nbytes for i in self.program if i.task.op is Op.SEND}
        sizes = sorted({*SIZES, *sent} - self.found.messages.keys())
        for number, nbytes in enumerate(sizes):
            report(0.5 * number / len(sizes), f"messages of {nbytes} bytes")
            self._messages(nbytes)
        wanted = {(Op.ALL_REDUCE, self.program.num_ranks): set(SIZES)}
        for task in {id(i.task): i.task for i in self.program}.values():
            if task.op in COLLECTIVES:
                many = wanted.setdefault((task.op, len(task.group)), set(SIZES[:3]))
                many.add(task.nbytes)
        cases = [
            (op, size, nbytes)
            for (op, size), many in sorted(wanted.items())
            for nbytes in sorted(many - self.found.collectives.get((op, size), {}).keys())
        ]
        for number, (op, size, nbytes) in enumerate(cases):
            what = f"{op.value.lower().replace('_', '-')} of {nbytes} bytes, {size} ranks"
            report(0.5 + 0.5 * number / len(cases), what)
            self._collective(op, tuple(range(size)), nbytes)
        return self.found

    def _run(self, program: Program, repeats: int) -> Timeline:
        """Execute a small program; its timeline on every rank."""
        groups = Groups(program, self.experiment.run.timeout_s)
        executor = Executor(self.experiment, program, self.rank, self.device, groups, self.progress)
        dtype = TORCH_DTYPE[self.experiment.workload.dtype]
        posted, end = [], []
        for _ in range(repeats + 1):
            for instruction in program.ranks[self.rank]:
                task = instruction.task
                nbytes = task.nbytes
                if task.op is Op.ALL_GATHER:
                    nbytes = task.allocates[0].nbytes // len(task.group)
                count = max(nbytes // dtype.itemsize, 1)
                if task.sources:
                    values = torch.zeros(count, dtype=dtype, device=self.device)
                    executor.tensors[task.tensor, instruction.microbatch] = values
            origin = self.clock.common_start()
            executor.step({})
            executor.forget()
            shift = self.clock.offset - origin
            posted.append([time + shift for time in executor.posted])
            end.append([time + shift for time in executor.end])
        executor.close()
        self.progress.leave()
        record = RankRecord(posted[1:], end[1:], [], 0)
        records: list[Any] = [None] * program.num_ranks
        dist.all_gather_object(records, record)
        for group in groups.all():
            dist.destroy_process_group(group)
        return merge(program, records)[0]

    def _host_overhead(self) -> float:
        """Host time per compute instruction beyond its work: that of instructions without."""
        nothing = Task(op=Op.OPTIMIZER_STEP, stage=0)
        lists = [[Instruction(nothing) for _ in range(200)] for _ in self.program.ranks]
        timeline = self._run(Program(lists), 2)
        mine = timeline.rank == self.rank
        return float(np.median(np.diff(timeline.start[mine])))

    def _messages(self, nbytes: int) -> None:
        """Ping-pong between ranks 0 and 1."""
        lists: list[list[Instruction]] = [[] for _ in self.program.ranks]
        last: list[tuple[Instruction, ...]] = [(), ()]
        for number in range(2 * (12 if nbytes <= 1 << 20 else 4)):
            source = number % 2
            for rank, op in ((source, Op.SEND), (1 - source, Op.RECV)):
                task = _message(op, 1 - rank, nbytes, number % 2)
                instruction = Instruction(task, number, last[rank] if op is Op.SEND else ())
                lists[rank].append(instruction)
                last[rank] = (instruction,)
        timeline = self._run(Program(lists), 2)
        received = timeline.of_kind(lambda kind: kind.op == "RECV")
        self.found.messages[nbytes] = float(np.median((timeline.end - timeline.start)[received]))
        if nbytes == SIZES[0]:
            sent = timeline.of_kind(lambda kind: kind.op == "SEND") & (timeline.rank == 1)
            ends = timeline.end[received & (timeline.rank == 1)]
            gaps = timeline.posted[sent] - ends[: int(sent.sum())]
            self.found.wake_s = max(float(np.median(gaps)), 0.0)

    def _collective(self, op: Op, group: tuple[int, ...], nbytes: int) -> None:
        # Every rank has an equal part; what sizes are asked for need not be multiples of it.
        unit = len(group) * TORCH_DTYPE[self.experiment.workload.dtype].itemsize
        whole = max(nbytes // unit, 1) * unit
        part = whole // len(group) if op is Op.REDUCE_SCATTER else whole
        task = Task(
            op=op,
            stage=0,
            stream="data",
            group=group,
            tensor="calibration",
            sources=("calibration",),
            nbytes=whole,
            allocates=() if op is Op.ALL_REDUCE else (Tensor("calibrated", part),),
        )
        repeats = 8 if nbytes <= 1 << 20 else 4
        lists = [
            [Instruction(task, number) for number in range(repeats)] if rank in group else []
            for rank in range(self.program.num_ranks)
        ]
        timeline = self._run(Program(lists), 2)
        durations = (timeline.end - timeline.start)[timeline.rank == group[0]]
        seconds = float(np.median(durations))
        self.found.collectives.setdefault((op, len(group)), {})[nbytes] = seconds


def _message(op: Op, peer: int, nbytes: int, direction: int) -> Task:
    stream = f"{'send' if op is Op.SEND else 'recv'}:{peer}"
    name = f"calibration:{direction}"
    sources = (name,) if op is Op.SEND else ()
    return Task(
        op=op, stage=0, stream=stream, peer=peer, tensor=name, sources=sources, nbytes=nbytes
    )
