"""Which cores, devices and links the activities of a program share, and what they take.

An activity takes bytes/s of every resource on its path, so activities that overlap slow
each other by `simulator.engine.contention`. A resource is left out where nothing can be slowed:
where one communicator, whose collectives take turns, or one pair of ranks is its only
user, or where all users together need less than there is. A device of one rank is shared by
its passes and the transfers beside them; one of several ranks, and the cores of a host, by all
that they do.

In a folded program the ranks that are left out do the same at the same time: what they
take of a resource is added to what the activity takes that stands for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from simulator.cluster.cluster import Cluster
from simulator.engine.contention import ROUNDING, Demand
from simulator.experiment.mesh import Mesh
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, COMMUNICATION, MESSAGES, Op
from simulator.program.program import Program
from simulator.program.task import Task

Ranks = tuple[int, ...]

PRESENCE = 1e-6
"""Of a core or device: enough to wait for it, too little to slow anybody."""


class Sharing:
    """Capacities, and the demand of every activity that can be slowed.

    Args:
        mesh: of all ranks, if the program is folded.
        alone: seconds of a task of a rank at full speed.
    """

    def __init__(
        self,
        program: Program,
        cluster: Cluster,
        mesh: Mesh | None,
        alone: Callable[[int, Task], float],
    ):
        self.cluster, self.mesh, self.alone = cluster, mesh, alone
        self.capacities: dict[str, float] = {}
        self._taken: dict[tuple[str, Ranks, int], dict[str, float]] = {}
        self._demands: dict[tuple[int, int], Demand] = {}
        self._beside: set[int] = set()
        self._all_beside = cluster.cores is not None
        if cluster.profile is None:
            self._share_links(program)
        if self._all_beside:
            seats = {cluster.compute_resource(rank) for rank in program.members}
            self.capacities |= dict.fromkeys(sorted(seats), cluster.compute_capacity)
        else:
            self._share_devices(program)

    def demand(self, participants: tuple[Instruction, ...], amount: float) -> Demand:
        """Of links, and `amount` of every participant's cores or device if others use them
        meanwhile.
        """
        first = participants[0]
        taken = self._demands.get((first.rank, id(first.task)), ())
        use: dict[str, float] = {}
        for member in participants if self._beside or self._all_beside else ():
            if self._all_beside or member.uid in self._beside:
                seat = self.cluster.compute_resource(member.rank)
                use[seat] = use.get(seat, 0.0) + amount
        return (*taken, *use.items())

    def presence(self, rank: int) -> Demand:
        """Of whoever waits for a moment on its cores or device, and takes nothing from others."""
        seat = self.cluster.compute_resource(rank)
        return ((seat, PRESENCE),) if seat in self.capacities else ()

    def _share_links(self, program: Program) -> None:
        users: dict[str, dict[int, float]] = {}
        numbers: dict[tuple[str, Ranks], int] = {}  # a group of thousands is hashed once
        rates: dict[tuple[int, int], dict[str, float]] = {}
        for instruction in _first_of_every_task(program):
            rank, task = instruction.rank, instruction.task
            seconds = self.alone(rank, task)
            if seconds <= 0:
                continue
            group, user = _ranks_of(rank, task)
            mine = rates[rank, id(task)] = {
                name: nbytes / seconds for name, nbytes in self._taken_by(task, group).items()
            }
            number = numbers.setdefault((user, group), len(numbers))
            for name, rate in mine.items():
                of_user = users.setdefault(name, {})
                of_user[number] = max(of_user.get(number, 0.0), rate)
        columns: dict[str, dict[tuple[int, int], float]] = {}
        limits = self.cluster.topology.capacities(range(program.world_size))
        for name, of_user in users.items():
            capacity = limits[name.partition(":")[2]]
            if sum(of_user.values()) > capacity * (1 + ROUNDING):
                self.capacities[name] = capacity
                columns[name] = {}
        for key, mine in rates.items():
            for name in columns.keys() & mine.keys():
                columns[name][key] = mine[name]
        for name in _looser(columns, self.capacities):
            del self.capacities[name]
        for key, mine in rates.items():
            kept = tuple((name, rate) for name, rate in mine.items() if name in self.capacities)
            if kept:
                self._demands[key] = kept

    def _taken_by(self, task: Task, group: Ranks) -> dict[str, float]:
        """Bytes through every resource, with those of the ranks that are left out."""
        op = Op.SEND if task.op in MESSAGES else task.op
        key = (op, group, task.nbytes)
        if key not in self._taken:
            mine = self._traffic(*key)
            taken = dict.fromkeys(mine, 0.0)
            for image in self._images(group, op is Op.SEND):
                for name, nbytes in self._traffic(op, image, task.nbytes).items():
                    if name in taken:
                        taken[name] += nbytes
            self._taken[key] = taken
        return self._taken[key]

    def _traffic(self, op: Op, group: Ranks, nbytes: int) -> dict[str, float]:
        traffic = self.cluster.collectives.traffic(op, group, nbytes)
        if self.cluster.cores is None:
            return traffic
        # processes of one host have no links of their own; what they share are its cores
        return {name: amount for name, amount in traffic.items() if ":island:" not in name}

    def _images(self, group: Ranks, ordered: bool) -> set[Ranks]:
        """`group`, and in a folded program those that do the same elsewhere."""
        if self.mesh is None or len(group) < 2:
            return {group}
        mesh = self.mesh
        first = mesh.coordinate(group[0])
        peers = mesh.ranks[:, first["pipeline"]].ravel().tolist()
        if ordered:  # a message: source and target at the same place but of the pipeline
            stage = mesh.coordinate(group[1])["pipeline"]
            targets = mesh.ranks[:, stage].ravel().tolist()
            return set(zip(peers, targets, strict=True))
        axes = mesh.axes_of(group)
        whole = mesh.group(group[0], *axes)
        place_of = {rank: place for place, rank in enumerate(whole)}
        places = [place_of[rank] for rank in group]
        wholes: list[Ranks] = []
        seen: set[int] = set()
        for peer in peers:
            if peer not in seen:
                wholes.append(mesh.group(peer, *axes))
                seen.update(wholes[-1])
        return {
            tuple(ranks[place] for place in shifted)
            for ranks in wholes
            for shifted in _cosets(places, len(whole))
        }

    def _share_devices(self, program: Program) -> None:
        """Passes and transfers that may overlap share their device. Messages do so only if that
        was measured: else they are taken for the work of copy engines.
        """
        measured = self.cluster.profile is not None
        transfers = COMMUNICATION if measured else COLLECTIVES
        device, taken = self.cluster.topology.device, self.cluster.library.transfer_share > 0
        ranks = Counter(map(device, program.members))
        for rank, instructions in zip(program.members, program.ranks, strict=True):
            seat = self.cluster.compute_resource(rank)
            if ranks[device(rank)] > 1:
                self.capacities[seat] = self.cluster.compute_capacity
                self._beside |= {
                    i.uid
                    for i in instructions
                    if i.task.op not in COMMUNICATION or (taken and i.task.op in transfers)
                }
                continue
            if not taken:
                continue
            passes = [i for i in instructions if i.task.op not in COMMUNICATION]
            place = {i.uid: index for index, i in enumerate(passes)}
            until: dict[int, int] = {}
            for index, compute in enumerate(passes):
                for other in compute.after:
                    until.setdefault(other.uid, index)
            overlapped = [0] * (len(passes) + 1)
            for i in instructions:
                if i.task.op not in transfers or _is_alone(i.task):
                    continue
                begin = max([place[o.uid] + 1 for o in i.after if o.uid in place], default=0)
                end = until.get(i.uid, len(passes))
                if begin < end:
                    self._beside.add(i.uid)
                    overlapped[begin] += 1
                    overlapped[end] -= 1
            depth = 0
            for index, compute in enumerate(passes):
                depth += overlapped[index]
                if depth:
                    self._beside.add(compute.uid)
                    self.capacities[seat] = self.cluster.compute_capacity


def _is_alone(task: Task) -> bool:
    return task.op in COLLECTIVES and len(task.group) < 2


def _looser(
    columns: dict[str, dict[tuple[int, int], float]], capacities: dict[str, float]
) -> set[str]:
    """Resources that another one makes superfluous: whoever uses them takes a larger share of
    that one. Of equals all but the first.
    """
    users: dict[tuple[int, int], list[str]] = {}
    for name, column in columns.items():
        for key in column:
            users.setdefault(key, []).append(name)
    order = {name: index for index, name in enumerate(columns)}
    found: set[str] = set()
    for name, column in columns.items():
        scale = capacities[name]
        for other in min((users[key] for key in column), key=len):
            theirs, limit = columns[other], capacities[other]
            if other == name or other in found:
                continue
            slack = [theirs.get(key, 0.0) / limit - rate / scale for key, rate in column.items()]
            equal = max(slack) <= ROUNDING and len(theirs) == len(column)
            if min(slack) >= -ROUNDING and not (equal and order[name] < order[other]):
                found.add(name)
                break
    return found


def _first_of_every_task(program: Program) -> Iterator[Instruction]:
    """Of every rank's messages and collectives; of a message, the side that sends."""
    for instructions in program.ranks:
        seen: set[int] = set()
        for instruction in instructions:
            task = instruction.task
            if task.op in COMMUNICATION and id(task) not in seen:
                seen.add(id(task))
                yield instruction


def _ranks_of(rank: int, task: Task) -> tuple[Ranks, str]:
    """Who takes part, and the name of the queue in which they take turns."""
    if task.op is Op.SEND:
        return (rank, task.peer), "message"
    if task.op is Op.RECV:
        return (task.peer, rank), "message"
    return task.group, task.stream


def _cosets(places: list[int], count: int) -> list[list[int]]:
    """Of places a, a+s, a+2s, … the ones that divide all `count` in the same way."""
    size = len(places)
    if size == count:
        return [places]
    step = places[1] - places[0]
    return [
        [block + offset + step * index for index in range(size)]
        for block in range(0, count, step * size)
        for offset in range(step)
    ]
