"""Derives what transfers and passes take from each other from a calibrated profile."""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.cluster.timing import Timing


def transfer_share(cluster: Cluster, timing: Timing, size: int) -> tuple[float, float]:
    """Return how much of a compute resource a transfer uses for each rank, and its weight.

    The first number is the share of the cores of a host, or of a rank's device, that the
    transfer uses at full speed; the second is the weight with which passes beside it give way.

    With a profile both follow from what was measured while all ranks computed: how much longer
    the transfer took, and what the passes lost. Alone, a transfer runs at full speed, so its
    demand is capped at the capacity; passes then lose slightly less than was measured.

    Args:
        cluster: where the transfer takes place.
        timing: what the transfer takes.
        size: ranks that take part.
    """
    profile, on_host = cluster.profile, cluster.cores is not None
    if profile is None or profile.transfer_loss is None or not timing.busy_s:
        return cluster.transfer_cores if on_host else cluster.library.transfer_share, 1.0
    capacity, passes = cluster.compute_capacity, profile.busy_ranks
    stretch = timing.busy_s / timing.mean_s
    level = min(1.0, capacity / passes) * (1.0 - profile.transfer_loss)
    needed = min(max(capacity - passes * level, 0.0) * stretch, capacity)
    level = min((capacity - needed / stretch) / passes, 1.0)
    together = size if on_host else min(size, cluster.topology.per_device)
    return needed / together, 1.0 / (level * stretch)


def wake_weight(cluster: Cluster) -> float | None:
    """Return the weight of a wake-up among passes that leave no core free.

    None: a wake-up does not wait for passes.
    """
    busy_s = cluster.profile.wake_busy_s if cluster.profile else None
    return cluster.wake_s / busy_s if busy_s and busy_s > cluster.wake_s else None
