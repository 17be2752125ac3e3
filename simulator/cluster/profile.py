"""A calibrated profile: what was measured on one machine, with its spread.

``twinline calibrate`` writes it; `simulator.cluster.profile_file` reads it, without torch. Times
are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from simulator.cluster.collective_algorithms import ring_seconds
from simulator.cluster.timing import Points, Timing, interpolate
from simulator.program.operations import Op


@dataclass
class Profile:
    """Measurements of one machine.

    Attributes:
        machine: hostname, processor, cores, versions, date.
        device: cpu or cuda.
        passes: durations by the text of a `simulator.engine.pass_key.PassKey`.
        rounds: for each round of calibration, what the passes of each rank took ÷ their mean.
            The spread of `passes` is what is left beside it.
        messages: (bytes, duration) of messages between two ranks, sizes ascending.
        collectives: (bytes, duration) by operation and group size; bytes are those of the larger
            side, as nccl-tests counts them.
        remote_messages, remote_collectives: the same between hosts, and among ranks of several;
            empty if all ranks were on one.
        narrow_collectives: the same on a host, of values of another type than the workload's, by
            type: on CPUs sums of some types are slow.
        ranks_per_host: of the calibration, where it was on several hosts; None: on one.
        issue_s: host time to begin one compute instruction.
        queue_s: host time that a communication takes from the compute instruction behind it.
        wake_s: time from the end of an instruction to the start of one on another stream that
            waited for it.
        wake_collective_s: the same where one of the two is a collective and the other a pass;
            None: not measured, `wake_s`.
        wake_busy_s: `wake_s` while all `busy_ranks` ranks compute; None: not measured.
        transfer_cores: share of a core that one rank's transfer occupies on idle cores.
        transfer_loss: share of their speed that passes lose beside transfers while all
            `busy_ranks` ranks compute; None: they left cores free, or it was not measured.
        busy_ranks: ranks that computed while transfers were timed beside passes.
        capacity: effective cores: how many cores' worth of work all ranks get done together.
            Below the core count if they share caches or clock; above 1 on a device whose passes
            leave gaps. None: not measured, the cores or the device count in full.
        ranks_per_device: ranks that share a device.
        peak_flops: FLOP/s of the best matrix product seen, by dtype.
    """

    machine: dict[str, Any]
    device: str = "cpu"
    passes: dict[str, Timing] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)
    messages: Points = field(default_factory=list)
    collectives: dict[Op, dict[int, Points]] = field(default_factory=dict)
    remote_messages: Points = field(default_factory=list)
    remote_collectives: dict[Op, dict[int, Points]] = field(default_factory=dict)
    narrow_collectives: dict[str, dict[Op, dict[int, Points]]] = field(default_factory=dict)
    ranks_per_host: int | None = None
    issue_s: float = 0.0
    queue_s: float = 0.0
    wake_s: float = 0.0
    wake_collective_s: float | None = None
    wake_busy_s: float | None = None
    transfer_cores: float = 0.0
    transfer_loss: float | None = None
    busy_ranks: int = 1
    capacity: float | None = None
    ranks_per_device: int = 1
    peak_flops: dict[str, float] = field(default_factory=dict)

    @property
    def measured_on(self) -> tuple[str | None, str, int]:
        """The machine that was measured: host, kind of device, and ranks on one device."""
        return self.machine.get("hostname"), self.device, self.ranks_per_device

    def without_busy(self) -> Profile:
        """Return this profile without what transfers took beside `busy_ranks` ranks."""

        def alone(points: Points) -> Points:
            return [(size, replace(timing, busy_s=None)) for size, timing in points]

        def all_alone(collectives: dict[Op, dict[int, Points]]) -> dict[Op, dict[int, Points]]:
            return {
                op: {size: alone(points) for size, points in sizes.items()}
                for op, sizes in collectives.items()
            }

        return replace(
            self,
            messages=alone(self.messages),
            collectives=all_alone(self.collectives),
            remote_messages=alone(self.remote_messages),
            remote_collectives=all_alone(self.remote_collectives),
            narrow_collectives={
                dtype: all_alone(of_type) for dtype, of_type in self.narrow_collectives.items()
            },
        )

    def messages_of(self, remote: bool) -> Points:
        """Return what was measured of messages on a host, or between hosts."""
        return self.remote_messages if remote else self.messages

    def collectives_of(self, remote: bool) -> dict[Op, dict[int, Points]]:
        """Return what was measured of collectives on a host, or among ranks of several hosts."""
        return self.remote_collectives if remote else self.collectives

    def message(self, nbytes: float, remote: bool = False) -> Timing | None:
        """Return how long a message of `nbytes` takes; None: no message was measured."""
        points = self.messages_of(remote)
        return interpolate(points, nbytes) if points else None

    def collective(
        self, op: Op, size: int, nbytes: float, remote: bool = False, dtype: str = ""
    ) -> Timing | None:
        """Return how long a collective takes; None: no collective was measured.

        Where this operation or group size was not measured, the ring formula scales what was
        measured with the nearest group size, or of all-reduces. A type that was not measured takes
        as long as that of the workload.
        """
        collectives = self.collectives_of(remote)
        if not remote:
            collectives = collectives | self.narrow_collectives.get(dtype, {})
        known = Op.ALL_REDUCE if op not in collectives else op
        measured = collectives.get(known)
        if not measured:
            return None
        nearest = min(measured, key=lambda other: (abs(other - size), other))
        timing = interpolate(measured[nearest], nbytes)
        if (known, nearest) == (op, size):
            return timing
        formula, by = ring_seconds(op, size, nbytes, 1e-4, 1e9), (known, nearest, nbytes)
        return timing.scaled(formula / ring_seconds(*by, 1e-4, 1e9))
