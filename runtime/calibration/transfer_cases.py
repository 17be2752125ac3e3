"""Small programs that `transfer_meter` runs to measure transfers and the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.executor.executor import Executor
from runtime.models.dtypes import TORCH_DTYPE
from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
from simulator.program.operation_columns import Payload
from simulator.program.operations import COLLECTIVES, IN_PLACE, Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName

SMALLEST = 8
TENSOR = TensorName.other("calibration")
SIZES = (1 << 14, 1 << 18, 1 << 21, 1 << 24)
LARGE_SIZES = (1 << 26, 1 << 28)
"""Further sizes on GPUs, whose links are still not full with those above."""

PASSES = 30
"""Passes in each of the programs that measure the host."""


@dataclass
class Runs:
    """When each instruction of this rank was posted, began and ended, in every run."""

    posted: list[list[float]] = field(default_factory=list)
    begun: list[list[float]] = field(default_factory=list)
    end: list[list[float]] = field(default_factory=list)


@dataclass
class TransferCase:
    """A small program that is run again and again.

    Attributes:
        name: what it measures, for people.
        program: its instructions; ranks that take no part have none.
        op: the operation measured; None: the program measures the host.
        size: number of ranks in the transfer.
        nbytes: bytes of the transfer.
        remote: its ranks are on several hosts.
        dtype: of values that are summed, if that is another one than the workload's.
        alone: the runs in which nothing else ran.
        busy: the runs beside `BusyWork`.
        cpu_s: CPU time of all threads of this process in the runs alone.
        wall_s: wall time of the same runs.
        executor: runs the program on this rank.
    """

    name: str
    program: Program
    op: Op | None = None
    size: int = 0
    nbytes: int = 0
    remote: bool = False
    dtype: str = ""
    alone: Runs = field(default_factory=Runs)
    busy: Runs = field(default_factory=Runs)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    executor: Executor | None = None


class TransferCases:
    """The cases that measure what `program` sends, and the host.

    Attributes:
        hosts: passes alone, and passes with a communication behind each.
        transfers: messages and collectives, by size.

    Args:
        experiment: the experiment.
        program: the program whose transfers are measured.
        wide: measure other sizes, too.
        hosts: which host every rank is on; None: all on one. On several, transfers on a host
            and between hosts are different cases.
        cores: cores of a host. At most so many ranks measure the host's time; if there were
            more, their waiting for a core would be measured, which the engine models itself.
    """

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        wide: bool,
        cores: int,
        hosts: Sequence[str] | None = None,
    ):
        self.experiment, self.program = experiment, program
        self._sizes = SIZES if experiment.run.device == "cpu" else SIZES + LARGE_SIZES
        self.hosts_of_ranks = hosts or [""] * program.num_ranks
        here = [
            rank for rank, host in enumerate(self.hosts_of_ranks) if not self._is_remote(0, rank)
        ]
        self.at_once = tuple(here[:cores])
        self.hosts = [self._host(), self._queueing()]
        self.transfers = [*self._messages(wide), *self._collectives(wide)]

    def _host(self) -> TransferCase:
        """Make the case for host time from one pass to the next."""
        return self._of_host("host overhead", [])

    def _queueing(self) -> TransferCase:
        """Make the case for host time that a queued communication takes from the next pass.

        Nobody waits for the communication.
        """
        reduce = self._collective_task(Op.ALL_REDUCE, SMALLEST, Stream.along("data"), self.at_once)
        return self._of_host("queueing", [reduce])

    def _of_host(self, name: str, behind: list[Task]) -> TransferCase:
        lists: list[list[Instruction]] = [[] for _ in self.program.ranks]
        for rank in self.at_once:
            for number in range(PASSES):
                lists[rank] += [_pass(number), *(Instruction(task, number) for task in behind)]
        return TransferCase(name, Program(lists))

    def _messages(self, wide: bool) -> list[TransferCase]:
        if self.program.num_ranks < 2:
            return []
        sizes = {SMALLEST, *(i.task.nbytes for i in self.program if i.task.op is Op.SEND)}
        others = range(1, self.program.num_ranks)
        peers = [
            next((rank for rank in others if self._is_remote(0, rank) == remote), None)
            for remote in (False, True)
        ]
        return [
            self._message(nbytes, peer)
            for peer in peers
            if peer is not None
            for nbytes in sorted(sizes | set(self._sizes if wide else ()))
        ]

    def _is_remote(self, *ranks: int) -> bool:
        """Tell whether ranks are on several hosts."""
        return len({self.hosts_of_ranks[rank] for rank in ranks}) > 1

    def _message(self, nbytes: int, peer: int) -> TransferCase:
        """Make a ping-pong between rank 0 and `peer`, with a pass behind every message."""
        lists: list[list[Instruction]] = [[] for _ in self.program.ranks]
        last = {0: _pass(-1)}
        lists[0].append(last[0])
        for number in range(2 * _repeats(nbytes)):
            source, target = (0, peer) if number % 2 == 0 else (peer, 0)
            send = Instruction(_message(Op.SEND, target, nbytes, source), number, [last[source]])
            receive = Instruction(_message(Op.RECV, source, nbytes, source), number)
            last[target] = _pass(number, receive)
            lists[source].append(send)
            lists[target] += [receive, last[target]]
        remote = self._is_remote(0, peer)
        name = f"messages of {nbytes} bytes" + (" between hosts" if remote else "")
        return TransferCase(name, Program(lists), Op.SEND, 2, nbytes, remote)

    def _collectives(self, wide: bool) -> list[TransferCase]:
        """Make a case for each operation, size and group size; the first such group runs it."""
        everyone = tuple(range(self.program.num_ranks))
        wanted: dict[tuple[Op, int, int, bool, str], tuple[Stream, tuple[int, ...], int]] = {}
        for task in {id(i.task): i.task for i in self.program}.values():
            if task.op in COLLECTIVES:
                remote = self._is_remote(*task.group)
                dtype = "" if remote else task.dtype
                for nbytes in (task.nbytes, SMALLEST, *(SIZES[:2] if wide else ())):
                    key = (task.op, len(task.group), nbytes, remote, dtype)
                    wanted.setdefault(key, (task.stream, task.group, task.root))
        if wide and len(everyone) > 1:
            for nbytes in (SMALLEST, *self._sizes):
                key = (Op.ALL_REDUCE, len(everyone), nbytes, self._is_remote(*everyone), "")
                wanted.setdefault(key, (Stream.along("data"), everyone, -1))
        return [
            self._collective(op, nbytes, self._collective_task(op, nbytes, *where, dtype))
            for (op, _, nbytes, _, dtype), where in sorted(wanted.items())
        ]

    def _collective_task(
        self,
        op: Op,
        nbytes: int,
        stream: Stream,
        group: tuple[int, ...],
        root: int = -1,
        dtype: str = "",
    ) -> Task:
        # Every rank has an equal part; what sizes are asked for need not be multiples of it.
        unit = len(group) * TORCH_DTYPE[dtype or self.experiment.workload.dtype].itemsize
        whole = max(nbytes // unit, 1) * unit
        part = whole // len(group) if op.row.payload is Payload.SCATTERED else whole
        return Task(
            op=op,
            stage=0,
            stream=stream,
            group=group,
            tensor=TENSOR,
            sources=(TENSOR,),
            nbytes=whole,
            allocates=() if op in IN_PLACE else (Tensor(TensorName.other("calibrated"), part),),
            root=root,
            dtype=dtype,
        )

    def _collective(self, op: Op, nbytes: int, task: Task) -> TransferCase:
        group = task.group
        lists: list[list[Instruction]] = [[] for _ in self.program.ranks]
        for mine in (lists[rank] for rank in group):
            for number in range(_repeats(nbytes)):
                before = _pass(number, *mine[-1:])
                mine += [before, Instruction(task, number, [before])]
        name = f"{op.value.lower().replace('_', '-')} of {nbytes} bytes, {len(group)} ranks"
        name += f", {task.dtype}" if task.dtype else ""
        return TransferCase(
            name, Program(lists), op, len(group), nbytes, self._is_remote(*group), task.dtype
        )


def _pass(number: int, *after: Instruction) -> Instruction:
    """Return an instruction in the place of a pass; it lasts `transfer_meter.PASS_S`."""
    return Instruction(Task(op=Op.OPTIMIZER_STEP, stage=0), number, after)


def _repeats(nbytes: int) -> int:
    return 8 if nbytes <= 1 << 20 else 2


def _message(op: Op, peer: int, nbytes: int, direction: int) -> Task:
    stream = Stream.send(peer) if op is Op.SEND else Stream.recv(peer)
    name = TensorName.other("calibration", direction)
    sources = (name,) if op is Op.SEND else ()
    return Task(
        op=op, stage=0, stream=stream, peer=peer, tensor=name, sources=sources, nbytes=nbytes
    )
