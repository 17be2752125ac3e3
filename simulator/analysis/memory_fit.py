"""Tells whether the tensors of a plan fit into the memory of its devices, or its hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from simulator.cluster.cluster import Cluster
from simulator.cluster.resource import Resource
from simulator.timeline.timeline import Timeline
from simulator.units import listed, nbytes


@dataclass(frozen=True)
class MemoryFit:
    """The verdict on the fullest device, or host: what it holds, and what memory it has.

    Only tensors are counted, as in `RankMetrics.peak_memory_bytes`. What is left over must hold
    the rest: the device's context, buffers of the communication library, workspace of kernels.

    Attributes:
        ranks: global numbers of the ranks that share it.
        needed_bytes: the sum of their peaks.
        available_bytes: its memory.
        holder: what has the memory; ranks on the cores of a host share that of the host.
    """

    ranks: tuple[int, ...]
    needed_bytes: int
    available_bytes: int
    holder: Literal["device", "host"]

    @property
    def fits(self) -> bool:
        """True if the peaks of its ranks fit together."""
        return self.needed_bytes <= self.available_bytes

    def __str__(self) -> str:
        ranks = f"{'rank' if len(self.ranks) == 1 else 'ranks'} {listed(self.ranks)}"
        amount = f"{nbytes(self.needed_bytes)} of {nbytes(self.available_bytes)}"
        left = self.available_bytes - self.needed_bytes
        verdict = f"fits, {nbytes(left)} left"
        if not self.fits:
            verdict = f"does not fit, {nbytes(-left)} too much"
        return f"memory: {amount} on the fullest {self.holder} ({ranks}): {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return all fields under their names, and whether it fits."""
        return {"fits": self.fits} | vars(self) | {"ranks": list(self.ranks)}


def memory_fit(timeline: Timeline, cluster: Cluster) -> MemoryFit:
    """Return the verdict on the device, or host, with the least memory left over.

    Allocators of different processes do not give back to each other, so their peaks add up.
    """
    held: dict[Resource, dict[int, int]] = {}
    for rank, sample in zip(timeline.members, timeline.memory, strict=False):
        held.setdefault(cluster.compute_resource(rank), {})[rank] = sample.peak
    fits = (
        MemoryFit(
            ranks=tuple(sorted(peaks)),
            needed_bytes=sum(peaks.values()),
            available_bytes=int(cluster.device_of(min(peaks)).memory_bytes),
            holder="device" if cluster.cores is None else "host",
        )
        for peaks in held.values()
    )
    return min(fits, key=lambda fit: fit.available_bytes - fit.needed_bytes)
