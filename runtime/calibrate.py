"""Calibration: what this machine needs for each distinct piece of a program.

Segment passes are timed while the other ranks compute as well, as many at once as there
are cores; for transfers see `runtime.transfers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from runtime.clock import Clock
from runtime.data import TORCH_DTYPE
from runtime.groups import Groups
from runtime.machine import cores, machine, matmul_flops
from runtime.passes import PassMeter, Samples
from runtime.progress import Progress
from runtime.transfers import TransferMeter
from simulator.experiment import Experiment
from simulator.profile import Profile, Timing, middle_mean
from simulator.program import Program

ROUND_S, TURN_S = 0.4, 0.06


class Calibrator:
    """Measures one rank of `program`; every rank must make the same calls together.

    `begin` once, then `round` as often as wanted (in turn with the measured steps), then
    `profile`, and `close` in any case.

    Args:
        wide: measure transfers of other sizes, too, so that the profile serves others.
    """

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        rank: int,
        device: torch.device,
        clock: Clock,
        progress: Progress,
        wide: bool = False,
    ):
        self.experiment, self.program, self.rank = experiment, program, rank
        self.device, self.clock, self.progress = device, clock, progress
        self.rounds: list[Samples] = []
        # Beside passes that leave cores free a transfer is as fast as alone.
        crowded = device.type != "cpu" or program.num_ranks >= cores()
        self.transfers = TransferMeter(
            experiment, program, rank, device, clock, progress, wide, crowded
        )
        self.alone: Samples = {}
        seconds = self.transfers.usual_seconds
        self.passes = PassMeter(experiment, program, rank, device, progress, seconds)

    # Segment passes ------------------------------------------------------------------

    def round(self) -> None:
        """Time passes: all ranks at once, as many as there are cores, then one alone; and
        some transfers.

        The two in turn tell how much ranks that compute together slow each other. Turns are
        short, because the machine's speed may change from one second to the next.
        """
        self.progress.leave()
        self.rounds.append({})
        at_once = min(cores(), self.program.num_ranks)
        begin = now = self.clock.common_start()
        while now < begin + ROUND_S:
            for end in range(at_once, self.program.num_ranks + at_once, at_once):
                last = min(end, self.program.num_ranks)  # the last lot is as large as the others
                self._time_for(TURN_S, range(last - at_once, last), self.rounds[-1])
            if at_once == cores() > 1:
                for rank in range(self.program.num_ranks):
                    self._time_for(TURN_S / 2, range(rank, rank + 1), self.alone)
            now = self.clock.common_start()
        self.transfers.round()

    def _time_for(self, seconds: float, ranks: range, into: Samples) -> None:
        """Time this rank's passes, at least one, if it is one of `ranks`."""
        end = self.clock.common_start() + seconds
        if self.rank in ranks:
            self.passes.warm_up()
            self.passes.time(into, partial(self._before, end))

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
        everything: list[Any] | None = [None] * self.program.num_ranks if self.rank == 0 else None
        dist.gather_object((self.rounds, slower), everything)
        if everything is None:
            return None
        rounds = [_merged(mine) for mine in zip(*(mine for mine, _ in everything), strict=True)]
        merged = _merged(rounds)
        speeds = _speeds(rounds, {key: float(np.mean(found)) for key, found in merged.items()})
        steady = _merged(
            {key: [time / speed for time in times] for key, times in found.items()}
            for found, speed in zip(rounds, speeds, strict=True)
        )
        # Together ÷ alone, in turn: passes are stated alone, and what ranks that compute
        # together lose is that they share fewer cores than they are given. With fewer ranks
        # than cores there is nothing to share: passes are stated as they were together.
        ratios = [ratio for _, ratio in everything if ratio is not None]
        slowdown = min(max(float(np.median(ratios)), 1.0), float(cores())) if ratios else 1.0
        dtype = self.experiment.workload.dtype
        profile = Profile(
            machine=machine(),
            device=self.device.type,
            passes={
                key: Timing.of([time / slowdown for time in seconds])
                for key, seconds in sorted(steady.items())
            },
            rounds=speeds[:-1],  # the last is of what was missing
            capacity=cores() / slowdown,
            messages=sent.messages,
            collectives=sent.collectives,
            issue_s=sent.issue_s,
            wake_s=sent.wake_s,
            transfer_cores=sent.transfer_cores,
            transfer_loss=sent.transfer_loss,
            busy_ranks=self.program.num_ranks,
            peak_flops={dtype: matmul_flops(TORCH_DTYPE[dtype], self.device)},
        )
        return asdict(profile)


def _merged(parts: Iterable[Samples]) -> Samples:
    merged: Samples = {}
    for samples in parts:
        for key, seconds in samples.items():
            merged.setdefault(key, []).extend(seconds)
    return merged


def _speeds(rounds: Iterable[Samples], means: dict[str, float]) -> list[float]:
    """Per round, what its passes took ÷ what they take in the mean; 1 if there were none."""
    speeds = []
    for samples in rounds:
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
