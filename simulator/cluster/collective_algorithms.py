"""Collectives by algorithm, in closed form: steps, and bytes across every boundary.

Seconds are start + latency of the steps + bytes ÷ bandwidth of the slowest resource. Of an
algorithm's protocols and of all algorithms the fastest counts, as in the tuner of NCCL
(src/graph/tuning.cc) and of MPI libraries. Payloads are counted as nccl-tests does: bytes
of the larger side.

ring: Patarasuk & Yuan 2009, section 3. piecewise-ring: the same as gloo has it (gloo/allreduce.cc),
in pieces of which two are under way: one is sent when the one before the last has come.
halving-doubling: Thakur, Rabenseifner & Gropp 2005, section 4. tree: two complementary binary trees
between nodes (Sanders, Speck & Träff 2009), chains inside, as in NCCL 2.4. hierarchical: level by
level (Cho et al. 2019, BlueConnect); its all-to-all is Rajbhandari et al. 2022 (DeepSpeed-MoE),
section 5. in-network: switches of an island add up (Graham et al. 2016, SHARP; NVLS), trees between
nodes. pairwise: Thakur et al. 2005, section 3. A reduce or a broadcast goes piece by piece along a
chain that is a ring cut open at the root: NCCL has no other way for them (src/graph/tuning.cc).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from simulator.cluster.extent import Extent
from simulator.cluster.library import Library
from simulator.cluster.topology import NODE, PORT
from simulator.program.operation_columns import Formula
from simulator.program.operations import Op

HALVES = tuple(op for op in Op if op.row.halves)
"""Operations that consist of one or both halves of an all-reduce."""
CHAINS = tuple(op for op in Op if op.row.cost is Formula.CHAINING)
"""Operations in which all bytes come to one rank, or from it."""


@dataclass(frozen=True)
class Way:
    """Steps and bytes of a collective by one algorithm.

    Attributes:
        steps: per level, steps one after the other.
        volumes: per level, bytes that leave every unit.
        phases: levels take turns; otherwise they are one pipeline.
        copies: how often every member puts its payload in place.
        pattern: who talks to whom; see `simulator.cluster.extent.extent_of`.
        pieces: messages that every rank sends one after the other, two of them under way; 0: the
            payload flows through.
    """

    steps: tuple[float, ...]
    volumes: tuple[float, ...]
    phases: bool = False
    copies: float = 0.0
    pattern: str = "ring"
    pieces: int = 0


PIECE = 1 << 20
"""The most bytes of a piece of a piecewise ring (gloo/allreduce.h: kMaxSegmentSize)."""

OPERATIONS = {
    "ring": (*HALVES, *CHAINS),
    "piecewise-ring": (*HALVES, *CHAINS),
    "halving-doubling": HALVES,
    "tree": (Op.ALL_REDUCE,),
    "hierarchical": (*HALVES, Op.ALL_TO_ALL),
    "in-network": (Op.ALL_REDUCE,),
    "pairwise": (Op.ALL_TO_ALL,),
}
"""The operations that each algorithm is for."""


def obstacle(algorithm: str, extent: Extent, library: Library) -> str:
    """Return why `algorithm` is not possible in a group that lies so; empty: it is."""
    if algorithm in ("halving-doubling", "hierarchical", "in-network") and not extent.even:
        return "needs equally many ranks on every node and island"
    if algorithm == "halving-doubling" and extent.size & (extent.size - 1):
        return f"needs a power of two of ranks, not {extent.size}"
    if algorithm == "in-network":
        if library.in_network is None:
            return "needs switches that add up ([collectives.in_network])"
        if extent.members[PORT] > 1:
            return "needs a device for every rank"
        least = library.in_network.devices
        if extent.members[PORT + 1] < max(extent.members[NODE], least):
            return f"needs at least {least} ranks on one island of every node"
    return ""


def way_of(algorithm: str, op: Op, extent: Extent, nbytes: float) -> Way:
    """Return the steps and bytes of `op` by `algorithm`."""
    levels = range(len(extent.counts) - 1)
    if op.row.cost is Formula.TRANSPOSING:
        return _all_to_all(algorithm, extent, nbytes)
    if op in CHAINS:
        return _chain(extent, nbytes)
    n, counts, half = extent.size, extent.counts, op.row.halves
    if algorithm == "ring":
        around = half * (n - 1) / n * nbytes
        steps = tuple(float(half * (counts[at] - counts[at + 1])) for at in levels)
        return Way(steps, (around,) * len(levels), copies=half / 2)
    if algorithm == "piecewise-ring":
        of_rank = 1 if op is Op.ALL_GATHER else ceil(nbytes / n / PIECE)
        pieces = half * (n - 1) * max(of_rank, 2)
        whole = (half * (n - 1) / n * nbytes,) * len(levels)
        return Way((0.0,) * len(levels), whole, copies=half / 2, pieces=pieces)
    if algorithm in ("tree", "in-network"):
        return _tree(algorithm == "in-network", extent, nbytes)
    fanouts = [extent.fanout(at) for at in levels]
    logarithmic = algorithm == "halving-doubling"
    steps = tuple(half * (log2(f) if logarithmic else float(f - 1)) for f in fanouts)
    return Way(steps, tuple(half * (f - 1) / f * nbytes for f in fanouts), True, half / 2)


def _chain(extent: Extent, nbytes: float) -> Way:
    """Return steps and bytes of a chain: all bytes leave every unit once, but the last."""
    levels = range(len(extent.counts) - 1)
    steps = tuple(float(extent.counts[at] - extent.counts[at + 1]) for at in levels)
    return Way(steps, (nbytes,) * len(levels), copies=0.5)


def _tree(switched: bool, extent: Extent, nbytes: float) -> Way:
    """Return steps and bytes of a tree, in which all bytes go up and down once.

    With two ends only, up and down are at the same time.
    """
    levels = range(len(extent.counts) - 1)
    volumes = [nbytes * (1 if extent.counts[at] == 2 else 2) for at in levels]
    steps = [
        2.0 * (ceil(log2(extent.fanout(at))) if at >= NODE else extent.fanout(at) - 1)
        for at in levels
    ]
    if switched:  # a device reads 1/n of the sum and writes it to all, and is read
        devices = extent.members[NODE]
        volumes[PORT], steps[PORT] = (devices + 1) / devices * nbytes, 1.0
    return Way(tuple(steps), tuple(volumes), copies=float(not switched), pattern="tree")


def _all_to_all(algorithm: str, extent: Extent, nbytes: float) -> Way:
    """Return steps and bytes of an all-to-all.

    Every rank has `nbytes`, equal parts of them for every rank of the group.
    """
    n, levels = extent.size, range(len(extent.counts) - 1)
    inside = [*extent.members, n]  # ranks in a unit
    if algorithm == "hierarchical":
        fanouts = [extent.fanout(at) for at in levels]
        volumes = tuple(inside[at] * (f - 1) / f * nbytes for at, f in enumerate(fanouts))
        return Way(tuple(f - 1.0 for f in fanouts), volumes, phases=True, pattern="pairs")
    # what a unit sends to its siblings; network cards and uplinks carry all that leaves
    reach = [n if at >= NODE else inside[at + 1] for at in levels]
    volumes = tuple(inside[at] * (reach[at] - inside[at]) / n * nbytes for at in levels)
    steps = tuple(float(inside[at + 1] - inside[at]) for at in levels)
    return Way(steps, volumes, pattern="pairs")


def ring_seconds(op: Op, size: int, nbytes: float, latency_s: float, bandwidth: float) -> float:
    """Return the seconds that a collective takes in a ring without contention.

    An all-reduce takes 2(n-1)/n·bytes/bandwidth + 2(n-1)·latency; each of its halves,
    reduce-scatter and all-gather, and a pairwise all-to-all half of that (Patarasuk & Yuan
    2009; Thakur et al. 2005, section 3). A shift is one message of each rank, all at once. A reduce
    and a broadcast take bytes/bandwidth + (n-1)·latency: their busbw is their algbw (nccl-tests,
    PERFORMANCE.md).

    Args:
        op: the operation.
        size: ranks, n.
        nbytes: payload, bytes of the larger side, as nccl-tests counts it.
        latency_s: seconds of one step.
        bandwidth: bytes/s of one rank, each way.
    """
    if op.row.cost is Formula.MESSAGE:
        return latency_s + nbytes / bandwidth
    if op in CHAINS:
        return nbytes / bandwidth + (size - 1) * latency_s
    rounds = max(op.row.halves, 1) * (size - 1)
    return rounds / size * nbytes / bandwidth + rounds * latency_s
