"""Islands without a switch: direct links between some pairs of devices.

NCCL sends around rings that share no link; the bandwidth of a group is that of one link times
the number of its rings
(Jeaugey 2018, "Multi-GPU Training with NCCL"; Li et al. 2020, "Evaluating Modern GPU
Interconnect", section 3, for the hybrid cube mesh of DGX-1).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import combinations, pairwise, permutations

LinkMatrix = tuple[tuple[int, ...], ...]
"""The number of direct links between every two devices of an island."""

Cycle = tuple[tuple[int, int], ...]


@cache
def ring_count(mesh: LinkMatrix, members: tuple[int, ...]) -> int:
    """Return the number of rings through all `members`.

    Together they use every link at most once in each direction.
    """
    if len(members) == 2:
        return mesh[members[0]][members[1]]
    links = {pair: mesh[pair[0]][pair[1]] for pair in combinations(members, 2)}
    most = min(sum(mesh[a][b] for b in members) for a in members) // 2
    return 2 * _packed(_cycles(links, members), links, most)


def _cycles(links: dict[tuple[int, int], int], members: tuple[int, ...]) -> list[Cycle]:
    """Return all Hamiltonian cycles, each in one direction."""
    found = []
    start, *others = members
    for order in permutations(others):
        if order[0] > order[-1]:
            continue
        steps = [(min(pair), max(pair)) for pair in pairwise((start, *order, start))]
        if all(links[step] for step in steps):
            found.append(tuple(steps))
    return found


def _packed(cycles: list[Cycle], links: dict[tuple[int, int], int], most: int) -> int:
    """Return the largest number of `cycles`, up to `most`, that fit into `links`.

    A cycle may be taken several times.
    """
    best = 0
    for index, cycle in enumerate(cycles):
        if best >= most:
            break
        left = Counter(links)
        left.subtract(cycle)
        fitting = [other for other in cycles[index:] if all(left[step] > 0 for step in other)]
        best = max(best, 1 + (_packed(fitting, left, most - 1) if most > 1 else 0))
    return best


def slowest_pair(mesh: LinkMatrix, members: tuple[int, ...], link: float, pcie: float) -> float:
    """Return the bytes/s that leave a device which sends equal parts to all other `members`.

    Devices that no link joins to it share its PCIe lanes of `pcie` bytes/s.
    """
    slowest = float("inf")
    for device in members:
        links = [mesh[device][other] for other in members if other != device]
        far = links.count(0)
        slowest = min([slowest, *(count * link for count in links if count)])
        if far:
            slowest = min(slowest, pcie / far)
    return slowest * (len(members) - 1)
