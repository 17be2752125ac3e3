"""Classes of ranks that a plan and a cluster treat alike, down to whom their partners share with.

Ranks start in one class if they have the same stage and equal devices. A class is divided as long
as its ranks differ in how their groups lie in islands, switches and nodes, in the classes of the
other members of their groups, or in the classes of those with whom they share a network card, a
PCIe switch or the uplinks of a leaf (colour refinement; Weisfeiler & Leman 1968). Ranks of one
class in the end have equal times: at every moment, what they wait for and what slows them is of the
same classes, in the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from simulator.cluster.nvlink import ring_count, slowest_pair
from simulator.cluster.placement import LANES, Integers, Placement
from simulator.cluster.topology import BRIDGE, LANE, PORT, Topology
from simulator.engine.rank_groups import Groups

Codes = npt.NDArray[np.uint64]
"""Numbers of 64 bits that stand for what they were made from; sums of them for collections."""


def mixed(values: npt.NDArray[np.generic]) -> Codes:
    """Return codes of integers, equal only for equal ones (SplitMix64, Steele et al. 2014)."""
    code = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return code ^ (code >> np.uint64(31))


def rank_classes(placement: Placement, stages: Integers, groups: Sequence[Groups]) -> Integers:
    """Return the class of every rank, as a number.

    Args:
        placement: of all ranks, in order.
        stages: the place of each rank on the pipeline; of a rank without passes a number that
            no other rank has.
        groups: all that communicate, pipelines among them.
    """
    start = mixed(stages) + mixed(mixed(placement.kinds)) + mixed(mixed(mixed(placement.links())))
    lies = [_how_it_lies(placement, divided) for divided in groups]
    shared = [np.flatnonzero(np.diff(units, prepend=-1)) for units in _shared(placement)]
    classes, count = _numbered(start)
    while True:
        codes = mixed(classes)
        seen = start + mixed(codes)
        for number, (divided, (whole, own)) in enumerate(zip(groups, lies, strict=True)):
            of_group = mixed(whole + codes[divided.ranks].sum(axis=1, dtype=np.uint64))
            seen += mixed(own + of_group[divided.row] + np.uint64(number))
        for number, begins in enumerate(shared):
            of_unit = mixed(np.add.reduceat(seen, begins) + np.uint64(number))
            lengths = np.diff(begins, append=len(seen))
            seen = mixed(seen) + np.repeat(of_unit, lengths)
        classes, more = _numbered(seen)
        if more == count:
            return classes
        count = more


def codes_of_groups(divided: Groups, placement: Placement, classes: Integers) -> Codes:
    """Return a code for every group, equal for those that do the same at the same time."""
    whole, _ = _how_it_lies(placement, divided)
    codes: Codes = whole + mixed(classes)[divided.ranks].sum(axis=1, dtype=np.uint64)
    return codes


def _numbered(codes: Codes) -> tuple[Integers, int]:
    known, classes = np.unique(codes, return_inverse=True)
    return classes, known.size


def _shared(placement: Placement) -> list[Integers]:
    """Return the resources that ranks may share: of PCIe switches, network cards, uplinks."""
    levels = range(BRIDGE, placement.topology.num_levels)
    boundaries = [boundary for level in levels for boundary in placement.boundary(level)]
    return [
        np.where(boundary.numbers >= 0, boundary.numbers, -2 - placement.ranks)
        for boundary in boundaries
        if boundary.family != LANES  # of one device
    ]


def _how_it_lies(placement: Placement, divided: Groups) -> tuple[Codes, Codes]:
    """Return codes of how every group lies in units, and of where every rank is in its group."""
    units = np.concatenate([placement.units, placement.cards[None]])
    ranks = divided.ranks
    distances = ranks - ranks[:, :1]  # written in the hash of the program
    whole = mixed(distances + (np.arange(ranks.shape[1]) << 32)).sum(axis=1, dtype=np.uint64)
    own = np.zeros(divided.world_size, dtype=np.uint64)
    positions = np.arange(ranks.shape[1] - 1)
    for level, row in enumerate(units):
        mine = row[ranks]
        changes = mine[:, 1:] != mine[:, :-1]
        whole += (changes * mixed(positions + (level << 40))).sum(axis=1, dtype=np.uint64)
        if divided.order == "ring":
            for way, step in enumerate((1, -1)):
                crosses = np.roll(mine, step, axis=1) != mine
                own[ranks] += crosses * mixed(np.array([(level << 41) + way]))
    for level, count in enumerate(divided.together(placement)):
        own += mixed(count + (level << 42))
    if placement.topology.mesh:
        of_group, of_rank = _direct_links(placement, divided)
        whole += mixed(of_group)
        own += mixed(of_rank)
    return whole, own


def _direct_links(placement: Placement, divided: Groups) -> tuple[Integers, Integers]:
    """Return numbers of the links within every group, and of those of every rank to the others.

    They matter in islands without a switch, where devices are joined by direct links.
    """
    islands, ranks = placement.units[LANE], divided.ranks
    positions = placement.units[PORT] - islands
    begins = np.diff(islands[ranks], axis=1, prepend=-1) != 0
    rows = np.concatenate([positions[ranks], begins], axis=1)
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    known: dict[object, int] = {}
    of_group, of_place = [], []
    for row in distinct:
        here, starts = np.split(row, 2)
        parts = [tuple(part.tolist()) for part in np.split(here, np.flatnonzero(starts)[1:])]
        links = tuple(sorted(_links(placement.topology, part) for part in parts))
        of_group.append(known.setdefault(links, len(known)))
        mine = [
            _links_from(placement.topology, part, place, divided.order)
            for part in parts
            for place in range(len(part))
        ]
        of_place.append([known.setdefault(links, len(known)) for links in mine])
    of_rank = np.zeros(divided.world_size, dtype=np.int64)
    of_rank[ranks] = np.array(of_place)[which.ravel()]
    return np.array(of_group)[which.ravel()], of_rank


def _links(topology: Topology, members: tuple[int, ...]) -> tuple[object, ...]:
    """Return what costs depend on of the links between members of an island."""
    if len(members) == 1:
        return ()
    assert topology.mesh
    pairs = sorted(topology.mesh[a][b] for a, b in combinations(members, 2))
    slowest = slowest_pair(topology.mesh, members, 1.0, 1.0)
    return (ring_count(topology.mesh, members), slowest, *pairs)


def _links_from(
    topology: Topology, members: tuple[int, ...], place: int, order: str
) -> tuple[int, ...]:
    """Return how many links join one member of an island to the others, as their order matters."""
    assert topology.mesh
    links = [topology.mesh[members[place]][other] for other in members]
    if order == "ring":
        links = links[place:] + links[:place]
    return tuple(links if order != "none" else sorted(links))
