"""The cores, devices and links that the activities of a program share, and what they take.

An activity takes bytes/s of every resource on its path, so activities that overlap slow each
other (see `simulator.engine.contention`). A resource is left out where nothing can be slowed: where
one communicator, whose collectives take turns, or one pair of ranks is its only user, or where all
users together need less than there is. A device of one rank is shared by its passes and the
transfers beside them; a device of several ranks, and the cores of a host, by all that they do.

In a folded program the ranks without a list do the same at the same time: what they take of a
resource is added to what the activity takes that stands for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set

import numpy as np
import numpy.typing as npt

from simulator.cluster.cluster import Cluster
from simulator.cluster.resource import Resource, ResourceKind
from simulator.engine.contention import ROUNDING, TEXT, Demand
from simulator.engine.device_overlap import overlapping
from simulator.engine.folded_traffic import FoldedTraffic, Ranks
from simulator.engine.redundant_resources import Column, redundant
from simulator.engine.replica_folding import Folding
from simulator.program.instruction import Instruction
from simulator.program.meetings import Queue, participants_of, rendezvous_key
from simulator.program.operations import COLLECTIVES, COMMUNICATION, MESSAGES, Op
from simulator.program.program import Program
from simulator.program.task import Task

PRESENCE = 1e-6
"""Share of a core or device that a waking stream takes: it waits for it and slows nobody."""

TaskOfRank = tuple[int, int]
"""A rank and the identity of one of its tasks."""


class Demands:
    """Capacities of shared resources, and the demand of every activity that can be slowed.

    Args:
        program: the program whose activities share them.
        cluster: the machine it runs on.
        folding: which ranks stand for all, if the program is folded.
        alone: seconds that a task of a rank takes at full speed.
    """

    def __init__(
        self,
        program: Program,
        cluster: Cluster,
        folding: Folding | None,
        alone: Callable[[int, Task], float],
    ):
        self.cluster, self.alone = cluster, alone
        self._folded = FoldedTraffic(folding, cluster, program.members) if folding else None
        self.capacities: dict[Resource, float] = {}
        self._taken: dict[tuple[Op, Ranks | int, int], dict[Resource, float]] = {}
        self._of_links: dict[TaskOfRank, Demand] = {}
        self._beside: set[int] = set()  # uids that share cores or a device
        self._all_beside = cluster.cores is not None
        if cluster.profile is None:
            self._share_links(program)
        self._own = self._owners(program)
        if self._all_beside:
            resources = {cluster.compute_resource(rank) for rank in program.members}
            self.capacities |= dict.fromkeys(sorted(resources, key=TEXT), cluster.compute_capacity)
        else:
            self._share_devices(program)

    def demand(self, participants: tuple[Instruction, ...], amount: float) -> Demand:
        """Return what an activity takes of links, and of its participants' cores or devices.

        Args:
            participants: instructions that run as one.
            amount: what each of them takes of its cores or device, if others use these meanwhile.
        """
        first = participants[0]
        of_links = self._of_links.get((first.rank, id(first.task)), ())
        use: dict[Resource, float] = {}
        if first.task.op not in COMMUNICATION:
            participants = participants[:1]  # who accepts it has no part in it
        for member in participants if self._beside or self._all_beside else ():
            if self._all_beside or member.uid in self._beside:
                resource = self.cluster.compute_resource(member.rank)
                use[resource] = use.get(resource, 0.0) + amount
        return (*of_links, *use.items())

    def beside(self, count: int) -> npt.NDArray[np.bool_]:
        """Return which of the instructions of the program share cores or a device."""
        found = np.full(count, self._all_beside)
        found[list(self._beside)] = True
        return found

    def presence(self, rank: int) -> Demand:
        """Return the demand of a stream that waits for a moment on its cores or device."""
        resource = self.cluster.compute_resource(rank)
        return ((resource, PRESENCE),) if resource in self.capacities else ()

    def own(self, rank: int) -> Set[Resource]:
        """Return the resources that passes and collectives of this rank use, and nothing else."""
        return self._own.get(rank, frozenset())

    def _owners(self, program: Program) -> dict[int, set[Resource]]:
        """Return, by rank, the resources that nothing but its passes and collectives uses."""
        users: dict[Resource, set[int | None]] = {}  # None: messages
        for rank in program.members:
            users.setdefault(self.cluster.compute_resource(rank), set()).add(rank)
        for rank, task in _communication(program):
            for resource, _ in self._of_links.get((rank, id(task)), ()):
                users.setdefault(resource, set()).add(None if task.op in MESSAGES else rank)
        owned: dict[int, set[Resource]] = {}
        for resource, who in users.items():
            only, *others = who
            if only is not None and not others:
                owned.setdefault(only, set()).add(resource)
        return owned

    def _share_links(self, program: Program) -> None:
        rates: dict[TaskOfRank, dict[Resource, float]] = {}
        users: dict[Resource, dict[int, float]] = {}  # per resource, the highest rate of each queue
        numbers: dict[Queue, int] = {}
        known: dict[tuple[object, int], int] = {}  # a group of thousands is hashed once
        for rank, task in _communication(program):
            seconds = self.alone(rank, task)
            if seconds <= 0:
                continue
            in_turn = task.stream, (task.peer,)  # requests, which a server serves one by one
            queue = rendezvous_key(rank, task) or in_turn
            taken = self._taken_by(task, participants_of(rank, task))
            mine = rates[rank, id(task)] = {
                resource: nbytes / seconds for resource, nbytes in taken.items()
            }
            number = known.get((queue[0], id(queue[1])))
            if number is None:
                number = numbers.setdefault(queue, len(numbers))
                if queue[1] is task.group:  # which stays where it is
                    known[queue[0], id(queue[1])] = number
            for resource, rate in mine.items():
                of_queue = users.setdefault(resource, {})
                of_queue[number] = max(of_queue.get(number, 0.0), rate)
        columns: dict[Resource, Column] = {}
        limits = self.cluster.topology.capacities(program.members)
        for resource, of_queue in users.items():
            capacity = limits[resource.link]
            if sum(of_queue.values()) > capacity * (1 + ROUNDING):
                self.capacities[resource] = capacity
                columns[resource] = {}
        for key, mine in rates.items():
            for resource in columns.keys() & mine.keys():
                columns[resource][key] = mine[resource]
        for resource in redundant(columns, self.capacities):
            del self.capacities[resource]
        for key, mine in rates.items():
            kept = tuple(
                (resource, rate) for resource, rate in mine.items() if resource in self.capacities
            )
            if kept:
                self._of_links[key] = kept

    def _taken_by(self, task: Task, group: Ranks) -> dict[Resource, float]:
        """Return the bytes through every resource, those of ranks without a list included."""
        op = Op.SEND if task.op in MESSAGES else task.op
        key = (op, id(group) if group is task.group else group, task.nbytes)
        if key not in self._taken:
            taken = self._traffic if self._folded is None else self._folded.taken
            self._taken[key] = taken(op, group, task.nbytes)
        return self._taken[key]

    def _traffic(self, op: Op, group: Ranks, nbytes: int) -> dict[Resource, float]:
        traffic = self.cluster.communication.traffic(op, group, nbytes)
        if self.cluster.cores is None:
            return traffic
        # processes of one host have no links of their own; what they share are its cores
        return {r: amount for r, amount in traffic.items() if r.kind is not ResourceKind.ISLAND}

    def _share_devices(self, program: Program) -> None:
        """Let passes and transfers that may overlap share their device.

        Messages do so only if that was measured: else they are taken for the work of copy engines.
        """
        measured = self.cluster.profile is not None
        transfers = COMMUNICATION if measured else COLLECTIVES
        if self.cluster.library.transfer_share <= 0:
            transfers = frozenset()
        device = self.cluster.topology.device
        ranks_on = Counter(map(device, program.members))
        for rank, first, columns in zip(
            program.members, program.begins, program.columns, strict=True
        ):
            if ranks_on[device(rank)] > 1:
                uses = [t.op not in COMMUNICATION or t.op in transfers for t in columns.tasks]
                using = np.flatnonzero(np.array(uses, bool)[columns.task])
                shares = True
            else:
                using = overlapping(columns, transfers)
                shares = using.size > 0
            self._beside.update((using + first).tolist())
            if shares:
                self.capacities[self.cluster.compute_resource(rank)] = self.cluster.compute_capacity


def _communication(program: Program) -> Iterator[tuple[int, Task]]:
    """Yield each message and collective of every rank once, with the rank."""
    for rank, columns in zip(program.members, program.columns, strict=True):
        for task in columns.tasks:
            if task.op in COMMUNICATION:
                yield rank, task
