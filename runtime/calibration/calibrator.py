"""Calibration: what this machine needs for each distinct piece of a program.

Segment passes are timed while the other ranks compute as well, as many at once as there
are cores, or ranks on a device; for transfers see `runtime.calibration.transfer_meter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.calibration.machine import cores, machine, matmul_flops
from runtime.calibration.pass_meter import PassMeter, Samples
from runtime.calibration.transfer_meter import TransferMeter
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.measurement.clock import Clock
from runtime.models.dtypes import TORCH_DTYPE
from simulator.cluster.profile import Profile
from simulator.cluster.timing import Timing, middle_mean

ROUND_S, TURN_S = 0.2, 0.06


class Calibrator:
    """Measures one rank of a program; every rank must make the same calls together.

    `begin` once, then `round` as often as wanted (in turn with the measured steps), then
    `profile`, and `close` in any case.

    Args:
        wide: measure transfers of other sizes, too, so that the profile serves others.
    """

    def __init__(self, rank: Rank, clock: Clock, wide: bool = False):
        self.rank, self.clock = rank, clock
        device, ranks = rank.device, range(rank.program.num_ranks)
        self.rounds: list[Samples] = []
        sharing = rank.experiment.cluster.ranks_per_device if device.type != "cpu" else None
        mates = [mates_of(other, clock.hosts, sharing) for other in ranks]
        # Of this rank its place among those it shares cores or a device with; the most that
        # do so; for how many there is room.
        self.place = mates[rank.number].index(rank.number)
        self.mates = max(map(len, mates))
        fewest_cores = _fewest_cores()
        self.room = min(sharing, self.mates) if sharing else fewest_cores
        # Beside passes that leave cores free a transfer is as fast as alone.
        crowded = sharing is not None or self.mates >= self.room
        self.transfers = TransferMeter(rank, clock, wide, crowded, fewest_cores)
        self.alone: Samples = {}
        self.peak_flops = 0.0
        self.passes = PassMeter(rank, self.transfers.usual_seconds)

    # Segment passes ------------------------------------------------------------------

    def round(self) -> None:
        """Time passes: all ranks at once, as many as there is room for, then one alone; and some
        transfers.

        The two in turn tell how much ranks that compute together slow each other. Turns are
        short, because the machine's speed may change from one second to the next; in company
        they add up to a step or more, so that rounds differ as much as steps do.
        """
        self.rank.progress.leave()
        self.rounds.append({})
        self.passes.warm_up()
        longest, step = self._agreed(self.passes.longest_s, self.passes.step_s)
        turn, left = max(TURN_S, 4 * longest), max(ROUND_S, step)
        at_once = min(self.room, self.mates)
        while left > 0:
            for end in range(at_once, self.mates + at_once, at_once):
                last = min(end, self.mates)  # the last lot is as large as the others
                lot = range(last - at_once, last)
                self._time_for(turn, lot, self.rounds[-1], longest if at_once > 1 else 0.0)
                left -= turn
            if at_once == self.room > 1:
                for place in range(self.mates):
                    self._time_for(turn / 4, range(place, place + 1), self.alone)
        if self.rank.number == 0:  # the machine is not as fast in every round
            dtype = TORCH_DTYPE[self.rank.experiment.workload.dtype]
            self.peak_flops = max(self.peak_flops, matmul_flops(dtype, self.rank.device))
        self.transfers.round()

    def _time_for(self, seconds: float, places: range, into: Samples, company: float = 0.0) -> None:
        """Time this rank's passes, at least one, if it is at one of `places`.

        Args:
            company: seconds to go on after that, not counted, so that nobody ends a pass alone.
        """
        end = self.clock.common_start() + seconds
        if self.place in places:
            self.passes.time(into, partial(self._before, end))
            if self._before(end + company):
                self.passes.time({}, partial(self._before, end + company))

    def _agreed(self, *mine: float) -> list[float]:
        """Of each the largest over all ranks."""
        largest = torch.tensor(mine, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return list(map(float, largest))

    def _before(self, end: float) -> bool:
        return self.clock.now() < end

    # Transfers -----------------------------------------------------------------------

    def begin(self, groups: Groups, report: Callable[[float, str], None]) -> None:
        """Measure transfers a first time.

        Args:
            groups: also of the programs of `transfers`.
        """
        self.transfers.begin(groups, report)

    def close(self) -> None:
        self.transfers.close()
        self.passes.close()

    # Result --------------------------------------------------------------------------

    def profile(self) -> dict[str, Any] | None:
        """The profile as JSON on rank 0, None elsewhere."""
        together = _merged(self.rounds)
        slower = _ratio(together, self.alone) if together.keys() & self.alone.keys() else None
        self.rounds.append({})
        self.passes.fill(self.rounds[-1], together.keys())
        sent = self.transfers.found()
        ranks, first = self.rank.program.num_ranks, self.rank.number == 0
        everything: list[Any] | None = [None] * ranks if first else None
        dist.gather_object((self.rounds, slower), everything)
        if everything is None:
            return None
        rounds = [
            list(of_ranks) for of_ranks in zip(*(mine for mine, _ in everything), strict=True)
        ]
        merged = _merged(samples for of_ranks in rounds for samples in of_ranks)
        means = {key: float(np.mean(found)) for key, found in merged.items()}
        # More ranks than there is room for are moved about, and none is at a slow place for long.
        crowded = self.mates > self.room
        speeds = [_speeds([_merged(of)] * len(of) if crowded else of, means) for of in rounds]
        steady = _merged(
            {key: [time / speed for time in times] for key, times in found.items()}
            for of_ranks, of_speeds in zip(rounds, speeds, strict=True)
            for found, speed in zip(of_ranks, of_speeds, strict=True)
        )
        # Together ÷ alone, in turn: passes are stated alone, and what ranks that compute
        # together lose is that they share fewer cores, or less of a device, than they are
        # given. With fewer ranks than cores there is nothing to share: passes are stated as
        # they were together.
        ratios = [ratio for _, ratio in everything if ratio is not None]
        slowdown = min(max(float(np.median(ratios)), 1.0), float(self.room)) if ratios else 1.0
        profile = Profile(
            machine=machine(self.rank.device),
            device=self.rank.device.type,
            passes={
                key: Timing.of([time / slowdown for time in seconds])
                for key, seconds in sorted(steady.items())
            },
            rounds=speeds[:-1],  # the last is of what was missing
            capacity=self.room / slowdown if ratios else None,
            **vars(sent),
            busy_ranks=self.mates,
            ranks_per_device=self.rank.experiment.cluster.ranks_per_device,
            peak_flops={self.rank.experiment.workload.dtype: self.peak_flops},
        )
        return asdict(profile)


def mates_of(rank: int, hosts: Sequence[str], sharing: int | None) -> list[int]:
    """The ranks, with itself, that share with `rank` the cores of its host or, `sharing` ranks
    each, a device of it.
    """
    here = [other for other, host in enumerate(hosts) if host == hosts[rank]]
    if sharing is None:
        return here
    first = here.index(rank) // sharing * sharing
    return here[first : first + sharing]


def _fewest_cores() -> int:
    """Of all hosts: so that ranks take the same turns everywhere."""
    everywhere = [0] * dist.get_world_size()
    dist.all_gather_object(everywhere, cores())
    return min(everywhere)


def _merged(parts: Iterable[Samples]) -> Samples:
    merged: Samples = {}
    for samples in parts:
        for key, seconds in samples.items():
            merged.setdefault(key, []).extend(seconds)
    return merged


def _speeds(of_ranks: Iterable[Samples], means: dict[str, float]) -> list[float]:
    """Per rank, what its passes took ÷ what they take in the mean; 1 if there were none."""
    speeds = []
    for samples in of_ranks:
        took = sum(sum(times) for times in samples.values())
        usual = sum(len(times) * means[key] for key, times in samples.items())
        speeds.append(took / usual if usual > 0 else 1.0)
    return speeds


def _ratio(these: Samples, those: Samples) -> float:
    """Of the means of what both have, in sum."""
    both = sorted(these.keys() & those.keys())
    return _total(these, both) / _total(those, both)


def _total(samples: Samples, keys: list[str]) -> float:
    return sum(middle_mean(samples[key]) for key in keys)
