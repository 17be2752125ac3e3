"""One clock for all ranks: offsets between hosts, and a common start for each step."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import torch
import torch.distributed as dist

PINGS = 15
LEAD_S = 0.002


def meet() -> None:
    """Wait for all ranks, through gloo: a barrier would take NCCL where there is one."""
    dist.all_reduce(torch.zeros(1))


def host_name() -> str:
    """Return what tells hosts apart: containers of several machines may have one name.

    Beside the name that is the identity of the boot, since which the monotonic clock counts.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{socket.gethostname()} {boot.read_text().strip()}"
    except OSError:  # not Linux
        return socket.gethostname()


class Clock:
    """This rank's monotonic clock, shifted to rank 0's.

    Processes of one host share the monotonic clock; for other hosts the offset is that of
    the ping with the shortest round trip (Cristian 1989), so it is off by at most half of
    that round trip.

    Attributes:
        hosts: which host every rank is on: see `host_name`.
        offset: seconds to add to this rank's monotonic clock.
    """

    def __init__(self) -> None:
        self.hosts = hosts = [""] * dist.get_world_size()
        dist.all_gather_object(hosts, host_name())
        self.offset = 0.0
        self.synchronize()
        meet()

    def synchronize(self) -> None:
        """Measure the offsets, all ranks together: clocks drift by up to a millisecond a minute."""
        for rank in range(1, len(self.hosts)):
            if self.hosts[rank] != self.hosts[0] and dist.get_rank() in (0, rank):
                offset = self._ping(rank)
                if dist.get_rank() == rank:
                    self.offset = offset

    def now(self) -> float:
        """Return the time of the common clock, in seconds."""
        return time.perf_counter() + self.offset

    def _ping(self, other: int) -> float:
        """Measure, together with rank 0, what rank `other` has to add to its clock."""
        best = (float("inf"), 0.0)
        for _ in range(PINGS):
            stamp = torch.zeros(1, dtype=torch.float64)
            if dist.get_rank() == 0:
                dist.recv(stamp, other)
                stamp[0] = time.perf_counter()
                dist.send(stamp, other)
            else:
                sent = time.perf_counter()
                dist.send(stamp, 0)
                dist.recv(stamp, 0)
                back = time.perf_counter()
                best = min(best, (back - sent, float(stamp[0]) - (sent + back) / 2))
        return best[1]

    def common_start(self) -> float:
        """Agree on a moment shortly ahead, sleep until then and return it."""
        moment = torch.tensor([self.now() + LEAD_S], dtype=torch.float64)
        dist.all_reduce(moment, op=dist.ReduceOp.MAX)
        origin = float(moment[0])
        time.sleep(max(origin - self.now(), 0.0))
        return origin
