"""The language in the middle: what every rank does in one training step.

A :class:`Program` holds one list of :class:`Instruction` per rank. The simulator
(`simulator.engine`) and the runtime (`runtime.executor`) both interpret it with the
same semantics, written down in ``docs/program.md``:

* a rank has a few *streams* (``compute``; ``send:PEER`` and ``recv:PEER`` per peer; one
  per communicator); the instructions of one stream run in the order of the list;
* an instruction starts when its stream is free, everything in ``after`` has ended and,
  for communication, every participant has arrived (rendezvous).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

COMPUTE_STREAM = "compute"


class Op(StrEnum):
    """Operations, named as in `torch.distributed.pipelining` where it has a name."""

    FORWARD = "F"
    RECOMPUTE = "R"
    BACKWARD = "B"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"
    SEND = "SEND"
    RECV = "RECV"
    ALL_REDUCE = "ALL_REDUCE"
    ALL_GATHER = "ALL_GATHER"
    REDUCE_SCATTER = "REDUCE_SCATTER"
    ALL_TO_ALL = "ALL_TO_ALL"
    SHIFT = "SHIFT"
    SHIFT_BACK = "SHIFT_BACK"
    GRADIENT_NORM = "NORM"
    OPTIMIZER_STEP = "STEP"


FORWARDS = frozenset({Op.FORWARD, Op.RECOMPUTE})
INPUT_BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_INPUT})
"""After which the gradients of a segment's inputs are known."""

LAST_BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_WEIGHT})
"""After which those of its parameters are."""

BACKWARDS = INPUT_BACKWARDS | LAST_BACKWARDS
SHIFTS = frozenset({Op.SHIFT, Op.SHIFT_BACK})
"""Every rank of the group sends to the next one (the one before) and receives from the other."""

COLLECTIVES = frozenset({Op.ALL_REDUCE, Op.ALL_GATHER, Op.REDUCE_SCATTER, Op.ALL_TO_ALL}) | SHIFTS
MESSAGES = frozenset({Op.SEND, Op.RECV})
COMMUNICATION = COLLECTIVES | MESSAGES


@dataclass(frozen=True, slots=True)
class Tensor:
    """A logical tensor that an instruction allocates; `nbytes` of it per microbatch."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Task:
    """What an instruction does. All microbatches of one pass share one task.

    `layers` is the half-open range of model layers it works on, `stage` the (virtual)
    pipeline stage, `segment` the piece of that stage (-1: the whole stage). `tensor` is
    what is sent or reduced, with `nbytes` the payload of one rank; both sides of a
    message name the same. `sources` are the tensors it reads: parts of a gradient are added
    into the first of them before anything is done with it. A collective puts its result
    into what it allocates, else it works in place: of the whole tensor it gathers, or scatters
    a sum of, this rank's part is in its place. A forward pass that does not allocate
    ``saved:…`` keeps no graph: it runs again (`Op.RECOMPUTE`) before its backward pass. Names
    in `allocates` and `frees` are per microbatch unless they have an ``@`` (see `tensor_key`).
    `version` (-1: what is current) counts the updates within the step: a forward pass uses
    those weights, an optimizer step supersedes them; one that allocates leaves the old weights
    to passes still to come.
    """

    op: Op
    stage: int
    layers: tuple[int, int] = (0, 0)
    segment: int = -1
    mnemonic: str = ""
    stream: str = COMPUTE_STREAM
    peer: int = -1
    group: tuple[int, ...] = ()
    tensor: str = ""
    nbytes: int = 0
    sources: tuple[str, ...] = ()
    reduction: str = "sum"
    allocates: tuple[Tensor, ...] = ()
    frees: tuple[str, ...] = ()
    version: int = -1

    @property
    def name(self) -> str:
        return self.mnemonic or self.op.value

    def label(self, microbatch: int) -> str:
        return label_of(self.stage, self.name, microbatch, self.segment)


def tensor_key(name: str, microbatch: int) -> tuple[str, int]:
    """Identity of a tensor on its rank: one a microbatch, or one a step (``stash:0@1``)."""
    return (name, -1) if "@" in name else (name, microbatch)


def label_of(stage: int, name: str, microbatch: int, segment: int) -> str:
    """``2F0``, ``0SEND_F3``, ``1B2.0`` (segment 0 of the stage), ``0REDUCE_GRAD``."""
    text = f"{stage}{name}" if microbatch < 0 else f"{stage}{name}{microbatch}"
    return text if segment < 0 else f"{text}.{segment}"


class Instruction:
    """One task for one microbatch on one rank.

    `after` are instructions of the same rank, on other streams, that must have ended.
    `rank` (the global one), `index` (position in the rank's list) and `uid` (position in
    the program) are given by :class:`Program`. Identity is object identity: passes may
    insert freely.
    """

    __slots__ = ("task", "microbatch", "after", "rank", "index", "uid")

    def __init__(self, task: Task, microbatch: int = -1, after: Iterable[Instruction] = ()):
        self.task = task
        self.microbatch = microbatch
        self.after = tuple(after)
        self.rank = self.index = self.uid = -1

    @property
    def label(self) -> str:
        return self.task.label(self.microbatch)

    def __repr__(self) -> str:
        return f"rank {self.rank}: {self.label}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parameters of one rank whose gradients are reduced and that are updated together.

    Their gradients are sums over `shards` and `replicas`.

    Attributes:
        segments: the layer ranges that use them, ascending.
        replicas: ranks that hold the same of it, this one included.
        shards: ranks that hold one equal part of it each, in this order; none: it is whole.
        zero: what is sharded: 1 the optimizer's state, 2 also gradients, 3 also parameters.
        copies: how many ranks of one model hold the same part of the same parameters.
        nbytes: of all its parameters, padded to equal parts.
    """

    segments: tuple[tuple[int, int], ...]
    replicas: tuple[int, ...] = ()
    shards: tuple[int, ...] = ()
    zero: int = 0
    copies: int = 1
    nbytes: int = 0

    @property
    def name(self) -> str:
        """Of its gradients."""
        return f"gradients:{self.segments[0][0]}"

    @property
    def weights(self) -> str:
        """Name of its parameters."""
        return f"parameters:{self.segments[0][0]}"

    @property
    def part_bytes(self) -> int:
        """Of one shard, or of all of it if it is whole."""
        return self.nbytes // max(len(self.shards), 1)


@dataclass(eq=False)
class Program:
    """The instruction lists of all ranks and the bytes each rank holds throughout.

    `resident` maps, per list, a name (parameters, gradients, …) to bytes, `buckets` lists,
    per list, its parameters. `num_stages` counts virtual stages over the whole pipeline.

    A *folded* program has the lists of some of `world_size` ranks only, and every other
    rank does the same as one of them. `members` are the global ranks of the lists; peers,
    groups and `Instruction.rank` are global too. Not given: all ranks.
    """

    ranks: list[list[Instruction]]
    resident: list[dict[str, int]] = field(default_factory=list)
    buckets: list[list[Bucket]] = field(default_factory=list)
    num_stages: int = 1
    members: list[int] = field(default_factory=list)
    world_size: int = 0

    def __post_init__(self) -> None:
        if not self.resident:
            self.resident = [{} for _ in self.ranks]
        if not self.buckets:
            self.buckets = [[] for _ in self.ranks]
        if not self.members:
            self.members = list(range(len(self.ranks)))
        self.world_size = self.world_size or len(self.ranks)
        uid = 0
        for rank, instructions in zip(self.members, self.ranks, strict=True):
            for index, instruction in enumerate(instructions):
                instruction.rank, instruction.index, instruction.uid = rank, index, uid
                uid += 1

    @property
    def num_ranks(self) -> int:
        """Lists, one a rank: fewer than `world_size` if the program is folded."""
        return len(self.ranks)

    @property
    def is_folded(self) -> bool:
        return self.num_ranks < self.world_size

    def __len__(self) -> int:
        return sum(map(len, self.ranks))

    def __iter__(self) -> Iterator[Instruction]:
        for instructions in self.ranks:
            yield from instructions

    @cached_property
    def meetings(self) -> list[tuple[Instruction, ...]]:
        """See :func:`match_rendezvous`."""
        return match_rendezvous(self)

    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the whole program: equal programs,
        equal hashes, on every machine and in every process."""
        digest = hashlib.sha256(repr((self.num_stages, self.resident, self.buckets)).encode())
        if self.is_folded:
            digest.update(f"{self.world_size} ranks\n".encode())
        numbers: dict[int, int] = {}  # by identity: hashing a task's fields is slow
        by_value: dict[Task, int] = {}
        for instructions in self.ranks:
            text: list[str] = []
            for instruction in instructions:
                rank, task, microbatch = instruction.rank, instruction.task, instruction.microbatch
                if id(task) not in numbers:
                    if task not in by_value:
                        by_value[task] = len(by_value)
                        text.append(repr(task))
                    numbers[id(task)] = by_value[task]
                after = ",".join([str(other.index) for other in instruction.after])
                text.append(f"{rank} {numbers[id(task)]} {microbatch} {after}\n")
            digest.update("".join(text).encode())
        return digest.hexdigest()[:16]


def rendezvous_key(instruction: Instruction) -> tuple[str, tuple[int, ...]]:
    """Names the queue in which an instruction meets its participants.

    The k-th SEND of a queue meets its k-th RECV; the k-th collective of every member
    of a communicator meet.
    """
    task = instruction.task
    if task.op is Op.SEND:
        return ("message", (instruction.rank, task.peer))
    if task.op is Op.RECV:
        return ("message", (task.peer, instruction.rank))
    return (task.stream, task.group)


def match_rendezvous(program: Program) -> list[tuple[Instruction, ...]]:
    """The participants of every message and collective, in the order of the program.

    Of the collectives in a folded program, those members that are in it.

    Raises:
        ValueError: a message has no partner, or the participants disagree about what
            is sent; names the ranks and the instructions.
    """
    queues: dict[tuple[str, tuple[int, ...]], dict[int, list[Instruction]]] = {}
    for rank, instructions in zip(program.members, program.ranks, strict=True):
        queue_of: dict[int, list[Instruction] | None] = {}  # by identity of the task
        for instruction in instructions:
            task = instruction.task
            if id(task) not in queue_of:
                queue_of[id(task)] = None
                if task.op in COMMUNICATION:
                    members = queues.setdefault(rendezvous_key(instruction), {})
                    queue_of[id(task)] = members.setdefault(rank, [])
            queue = queue_of[id(task)]
            if queue is not None:
                queue.append(instruction)
    folded_away = set(range(program.world_size)).difference(program.members)
    agreed: set[tuple[int, ...]] = set()
    meetings: list[tuple[Instruction, ...]] = []
    for key, members in queues.items():
        kind, group = key
        expected = group
        if folded_away and kind != "message":
            expected = tuple([rank for rank in group if rank not in folded_away])
        longest = max(members.values(), key=len)
        for member, theirs in members.items():
            if member not in group:
                raise ValueError(f"rank {member}: {theirs[0].label} is not of its group {group}")
        for rank in expected:
            mine = members.get(rank, [])
            if len(mine) < len(longest):
                missing = longest[len(mine)]
                raise ValueError(
                    f"rank {missing.rank}: {missing.label} has no partner on rank {rank}"
                )
        for meeting in zip(*(members[rank] for rank in expected), strict=True):
            tasks = tuple([id(member.task) for member in meeting])
            if tasks not in agreed or len({member.microbatch for member in meeting}) > 1:
                check_agreement(meeting)
                agreed.add(tasks)
            meetings.append(meeting)
    return meetings


def check_agreement(meeting: tuple[Instruction, ...]) -> None:
    """Refuse participants that would exchange different things."""

    def what(instruction: Instruction) -> str:
        task = instruction.task
        op = "message" if task.op in MESSAGES else task.op.value
        which = f" of microbatch {instruction.microbatch}" if instruction.microbatch >= 0 else ""
        return f"{op} {task.tensor}{which}, {task.nbytes} bytes"

    first = meeting[0]
    for other in meeting[1:]:
        if what(other) != what(first):
            raise ValueError(
                f"rank {first.rank}: {first.label} ({what(first)}) would meet rank {other.rank}: "
                f"{other.label} ({what(other)}): their orders differ"
            )
