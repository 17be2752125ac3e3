"""Programs: what every rank does in one training step, or in several that follow each other.

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
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from simulator.program.accept_queue import AcceptQueue, queues_of
from simulator.program.bucket import Bucket
from simulator.program.call_columns import CallColumns
from simulator.program.columns import Columns, Integers, columns_of_calls, columns_of_list
from simulator.program.digest import ListDigests
from simulator.program.instruction import Instruction
from simulator.program.meetings import match_rendezvous
from simulator.program.template import Call, expand
from simulator.units import counted


class Program:
    """The instruction lists of all ranks and the bytes that each rank holds throughout.

    A *folded* program has lists of some ranks only; every other rank does the same as one of
    them, with partners at the same distance. Peers, groups and `Instruction.rank` are global
    ranks there, too.

    Args:
        ranks: the instructions of each list, in an order in which the rank can execute them.
        resident: per list, bytes by name (parameters, gradients, …).
        buckets: per list, its parameters.
        num_stages: virtual stages over the whole pipeline.
        list_of: for every global rank the position of the list that says what it does; not
            given: every rank has its own.
        calls: per list, the calls that it is written out from, in place of `ranks`.
        num_microbatches: of a training step, where calls count them on over several; 0: there
            is one step.

    Attributes:
        members: per list, the global rank whose partners it names: the first that it is for.
    """

    def __init__(
        self,
        ranks: Sequence[list[Instruction]] = (),
        resident: Sequence[dict[str, int]] = (),
        buckets: Sequence[list[Bucket]] = (),
        num_stages: int = 1,
        list_of: Sequence[int] = (),
        calls: Sequence[list[Call]] = (),
        num_microbatches: int = 0,
    ) -> None:
        self.calls = list(calls)
        self.num_microbatches = num_microbatches
        self.num_ranks = len(calls) or len(ranks)
        self.resident = list(resident) or [{} for _ in range(self.num_ranks)]
        self.buckets = list(buckets) or [[] for _ in range(self.num_ranks)]
        self.num_stages = num_stages
        self.list_of = list(list_of) or list(range(self.num_ranks))
        self.members = members_of(self.list_of)
        if not calls:
            self.ranks = self._numbered(ranks)

    @cached_property
    def ranks(self) -> list[list[Instruction]]:
        """The instructions of each list; where there are calls, written out when asked for."""
        return self._numbered([expand(calls, self.num_microbatches) for calls in self.calls])

    def _numbered(self, ranks: Iterable[list[Instruction]]) -> list[list[Instruction]]:
        """Tell the instructions where they are."""
        lists, uid = list(ranks), 0
        for rank, instructions in zip(self.members, lists, strict=True):
            for index, instruction in enumerate(instructions):
                instruction.rank, instruction.index, instruction.uid = rank, index, uid
                uid += 1
        return lists

    @cached_property
    def call_columns(self) -> list[CallColumns]:
        """The calls of each list as columns."""
        return [CallColumns(calls) for calls in self.calls]

    @cached_property
    def columns(self) -> list[Columns]:
        """The instructions of each list as columns."""
        if self.calls:
            return [columns_of_calls(calls, self.num_microbatches) for calls in self.call_columns]
        return [columns_of_list(instructions) for instructions in self.ranks]

    @cached_property
    def horizon(self) -> int:
        """The number of training steps."""
        return 1 + max([int(listed.step.max(initial=0)) for listed in self.columns], default=0)

    @property
    def world_size(self) -> int:
        """The number of ranks, those without a list of their own included."""
        return len(self.list_of)

    @property
    def counts(self) -> list[int]:
        """The number of ranks that each list is for."""
        found = Counter(self.list_of)
        return [found[position] for position in range(self.num_ranks)]

    @property
    def is_folded(self) -> bool:
        """True if some ranks have no list of their own."""
        return self.num_ranks < self.world_size

    def __len__(self) -> int:
        if self.calls:
            return sum(map(len, self.call_columns))
        return sum(map(len, self.ranks))

    def __repr__(self) -> str:
        folded = f" for {counted(self.world_size, 'rank')}" if self.is_folded else ""
        size = f"{counted(self.num_ranks, 'list')}{folded}, {counted(len(self), 'instruction')}"
        return f"Program({size})"

    def __iter__(self) -> Iterator[Instruction]:
        for instructions in self.ranks:
            yield from instructions

    @cached_property
    def begins(self) -> list[int]:
        """The uid of the first instruction of each list."""
        return [0, *accumulate(map(len, self.columns))][:-1]

    @cached_property
    def meeting_queues(self) -> list[Integers]:
        """The uids of those who meet, an array for each queue: `match_rendezvous`."""
        return match_rendezvous(self.columns, self.members, self.world_size)

    @cached_property
    def participants(self) -> list[tuple[int, ...]]:
        """The uids of the participants of every message and collective, queue by queue."""
        return [tuple(uids) for queue in self.meeting_queues for uids in queue.tolist()]

    @cached_property
    def queues(self) -> list[AcceptQueue]:
        """The queues in which requests wait for a server: see `simulator.program.arrival`."""
        return queues_of(self.columns, self.members, self.begins)

    @property
    def meetings(self) -> list[tuple[Instruction, ...]]:
        """The participants of every message and collective, written out."""
        listed = list(self)
        return [tuple([listed[uid] for uid in uids]) for uids in self.participants]

    def instruction(self, uid: int) -> Instruction:
        """Return an instruction; unless all are written out, without what it waits for."""
        position = bisect_right(self.begins, uid) - 1
        columns, index = self.columns[position], uid - self.begins[position]
        if not self.calls:
            return self.ranks[position][index]
        task = columns.tasks[int(columns.task[index])]
        found = Instruction(task, int(columns.microbatch[index]), step=int(columns.step[index]))
        found.rank, found.index, found.uid = self.members[position], index, uid
        return found

    def hash(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of what all ranks do.

        Equal programs have equal hashes, on every machine and in every process, and a folded
        program has the hash of the whole one: it is made of a digest for every rank.
        """
        digests = ListDigests()
        of_list = [
            digests.digest(*what)
            for what in zip(self.members, self.columns, self.resident, self.buckets, strict=True)
        ]
        whole = hashlib.sha256(f"{self.num_stages} stages\n".encode())
        whole.update(b"".join([of_list[position] for position in self.list_of]))
        return whole.hexdigest()[:16]


def members_of(list_of: Sequence[int]) -> list[int]:
    """Return for every list the first rank that it is for."""
    first: dict[int, int] = {}
    for rank, position in enumerate(list_of):
        first.setdefault(position, rank)
    return [first[position] for position in range(len(first))]
