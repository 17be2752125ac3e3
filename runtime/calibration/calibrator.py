"""Calibration of one rank: what this machine needs for each distinct piece of a program.

Passes are timed while other ranks compute as well, as many at once as there are cores, or
as share a device. Transfers are measured by `runtime.calibration.transfer_meter`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime import host
from runtime.calibration.machine import machine, matmul_flops
from runtime.calibration.pass_meter import PassMeter, Samples
from runtime.calibration.transfer_meter import TransferMeter
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.measurement.clock import Clock
from runtime.models.dtypes import TORCH_DTYPE
from simulator.cluster.profile import Profile
from simulator.cluster.timing import Timing, middle_mean
from simulator.engine.pass_key import PassKey
from simulator.experiment.section import ExperimentError

ROUND_S, TURN_S = 0.2, 0.06
"""Seconds of passes in a round, and of one turn; both grow with the program's passes."""


class Calibrator:
    """The calibration of one rank of a program; all ranks must make the same calls together.

    `begin` once, then `round` as often as wanted (in turn with the measured steps), then
    `profile`, and `close` in any case.

    Args:
        wide: measure transfers of other sizes, too, so that the profile serves other plans.
    """

    def __init__(self, rank: Rank, clock: Clock, wide: bool = False):
        self.rank, self.clock = rank, clock
        device, ranks = rank.device, range(rank.program.num_ranks)
        self.ranks_per_host = ranks_per_host(clock.hosts)
        self.rounds: list[Samples] = []
        sharing = rank.experiment.cluster.ranks_per_device if device.type != "cpu" else None
        sharers = [sharers_of(other, clock.hosts, sharing) for other in ranks]
        # This rank's position among the ranks that share its cores or its device, the size of
        # the largest such set, and how many of a set can compute at once.
        self.position = sharers[rank.number].index(rank.number)
        self.sharers = max(map(len, sharers))
        fewest_cores = _fewest_cores()
        self.slots = min(sharing, self.sharers) if sharing else fewest_cores
        # A transfer beside passes that leave cores free is as fast as alone.
        crowded = sharing is not None or self.sharers >= self.slots
        self.transfers = TransferMeter(rank, clock, wide, crowded, fewest_cores)
        self.alone: Samples = {}
        self.peak_flops = 0.0
        self.passes = PassMeter(rank, self.transfers.usual_seconds)

    # Segment passes ------------------------------------------------------------------

    def round(self) -> None:
        """Time passes and some transfers once more.

        All ranks time their passes together, as many at once as have a core, and then one rank
        alone. The two in turn tell how much ranks that compute together slow each other. Turns are
        short, because the machine's speed may change from one second to the next; together they
        add up to a step or more, so that rounds differ as much as steps do.
        """
        self.rank.progress.leave()
        self.rounds.append({})
        self.passes.warm_up()
        longest, step = self._agreed(self.passes.longest_s, self.passes.step_s)
        turn, left = max(TURN_S, 4 * longest), max(ROUND_S, step)
        at_once = min(self.slots, self.sharers)
        while left > 0:
            for end in range(at_once, self.sharers + at_once, at_once):
                last = min(end, self.sharers)  # the last batch is as large as the others
                batch = range(last - at_once, last)
                self._time_for(turn, batch, self.rounds[-1], longest if at_once > 1 else 0.0)
                left -= turn
            if at_once == self.slots > 1:
                for position in range(self.sharers):
                    self._time_for(turn / 4, range(position, position + 1), self.alone)
        if self.rank.number == 0:  # the machine is not as fast in every round
            dtype = TORCH_DTYPE[self.rank.experiment.workload.dtype]
            self.peak_flops = max(self.peak_flops, matmul_flops(dtype, self.rank.device))
        self.transfers.round()

    def _time_for(
        self, seconds: float, positions: range, into: Samples, overrun_s: float = 0.0
    ) -> None:
        """Time this rank's passes, at least one, if its position is among `positions`.

        Args:
            seconds: length of the turn.
            positions: whose turn it is.
            into: where durations go.
            overrun_s: time to go on afterwards, not counted, so that nobody ends a pass alone.
        """
        end = self.clock.common_start() + seconds
        if self.position in positions:
            self.passes.time(into, partial(self._before, end))
            if self._before(end + overrun_s):
                self.passes.time({}, partial(self._before, end + overrun_s))

    def _agreed(self, *mine: float) -> list[float]:
        """Return the largest of each value over all ranks."""
        largest = torch.tensor(mine, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return list(map(float, largest))

    def _before(self, end: float) -> bool:
        return self.clock.now() < end

    # Transfers -----------------------------------------------------------------------

    def begin(self, groups: Groups, report: Callable[[float, str], None]) -> None:
        """Measure transfers a first time.

        Args:
            groups: the process groups, also those of the programs in `transfers`.
            report: called with the share done, 0 to 1, and the current case.
        """
        self.transfers.begin(groups, report)

    def close(self) -> None:
        """Release what the executors hold."""
        self.transfers.close()
        self.passes.close()

    # Result --------------------------------------------------------------------------

    def profile(self) -> dict[str, Any] | None:
        """Return the profile as JSON on rank 0, and None on other ranks."""
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
        # Ranks that outnumber their slots are moved about, so none stays on a slow core for long.
        crowded = self.sharers > self.slots
        speeds = [_speeds([_merged(of)] * len(of) if crowded else of, means) for of in rounds]
        steady = _merged(
            {key: [time / speed for time in times] for key, times in found.items()}
            for of_ranks, of_speeds in zip(rounds, speeds, strict=True)
            for found, speed in zip(of_ranks, of_speeds, strict=True)
        )
        # The slowdown is a pass's time together ÷ its time alone. The profile states passes as
        # if alone, and a capacity below the number of slots, which the engine shares out. With
        # fewer ranks than cores there is nothing to share: passes are stated as measured.
        ratios = [ratio for _, ratio in everything if ratio is not None]
        slowdown = min(max(float(np.median(ratios)), 1.0), float(self.slots)) if ratios else 1.0
        profile = Profile(
            machine=machine(self.rank.device),
            device=self.rank.device.type,
            passes={
                str(key): Timing.of([time / slowdown for time in seconds])
                for key, seconds in sorted(steady.items(), key=lambda item: str(item[0]))
            },
            rounds=speeds[:-1],  # the last has only the passes that were missing
            capacity=self.slots / slowdown if ratios else None,
            **vars(sent),
            ranks_per_host=self.ranks_per_host,
            busy_ranks=self.sharers,
            ranks_per_device=self.rank.experiment.cluster.ranks_per_device,
            peak_flops={self.rank.experiment.workload.dtype: self.peak_flops},
        )
        return asdict(profile)


def sharers_of(rank: int, hosts: Sequence[str], sharing: int | None) -> list[int]:
    """Return the ranks, with itself, that share with `rank` the cores of its host or a device.

    Args:
        rank: the rank in question.
        hosts: host name of every rank.
        sharing: how many ranks share one device; None: ranks share the cores of their host.
    """
    here = [other for other, host in enumerate(hosts) if host == hosts[rank]]
    if sharing is None:
        return here
    first = here.index(rank) // sharing * sharing
    return here[first : first + sharing]


def ranks_per_host(hosts: Sequence[str]) -> int | None:
    """Return how many ranks each host has; None: there is one host.

    Raises:
        ExperimentError: some have more than others.
    """
    counts = Counter(hosts)
    if len(counts) == 1:
        return None
    if len(set(counts.values())) > 1:
        each = ", ".join(map(str, counts.values()))
        raise ExperimentError(
            f"calibration over {len(counts)} hosts: they have {each} ranks; allowed: the same "
            "--nproc-per-node on all"
        )
    return next(iter(counts.values()))


def _fewest_cores() -> int:
    """Return the smallest core count of all hosts, so that turns are the same everywhere."""
    everywhere = [0] * dist.get_world_size()
    dist.all_gather_object(everywhere, host.cores())
    return min(everywhere)


def _merged(parts: Iterable[Samples]) -> Samples:
    merged: Samples = {}
    for samples in parts:
        for key, seconds in samples.items():
            merged.setdefault(key, []).extend(seconds)
    return merged


def _speeds(of_ranks: Iterable[Samples], means: dict[PassKey, float]) -> list[float]:
    """Return per rank the time of its passes ÷ their mean time over all ranks; 1 if it had none."""
    speeds = []
    for samples in of_ranks:
        took = sum(sum(times) for times in samples.values())
        usual = sum(len(times) * means[key] for key, times in samples.items())
        speeds.append(took / usual if usual > 0 else 1.0)
    return speeds


def _ratio(these: Samples, those: Samples) -> float:
    """Return the ratio of the summed means of the passes that both have."""
    both = sorted(these.keys() & those.keys(), key=str)
    return _total(these, both) / _total(those, both)


def _total(samples: Samples, keys: list[PassKey]) -> float:
    return sum(middle_mean(samples[key]) for key in keys)
