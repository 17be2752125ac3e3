"""Costs from a profile: what this machine took when it was calibrated."""

from __future__ import annotations

from copy import copy

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.timing import TENTHS, Timing
from simulator.engine.estimated_costs import EstimatedCosts, EstimatedDurations
from simulator.engine.pass_key import PassKey, key_of_task
from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
from simulator.program.meetings import participants_of
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.task import Task


class MeasuredDurations(EstimatedDurations):
    """Durations of a profile; passes that it does not have are estimated.

    Attributes:
        measured: keys of the passes asked for so far that the profile has.
        estimated: keys of those that it does not have.
    """

    def __init__(self, experiment: Experiment, cluster: Cluster, profile: Profile) -> None:
        super().__init__(experiment, cluster)
        self.profile = profile
        self.measured: set[PassKey] = set()
        self.estimated: set[PassKey] = set()
        self._unmeasured: set[str] = set()

    def compute(self, rank: int, task: Task) -> Timing:
        """Return the measured duration of a pass, else its estimate."""
        key = self._measured_key(task)
        if key is not None:
            self.measured.add(key)
            return self.profile.passes[str(key)]
        self.estimated.add(self._key(task.op, task))
        return super().compute(rank, task)

    def message(self, rank: int, task: Task) -> Timing:
        """Return the measured duration of a message, else that of the laptop preset."""
        remote = self.cluster.is_measured_as_remote(participants_of(rank, task))
        if not self.profile.messages_of(remote):
            self._unmeasured.add("messages")
        return super().message(rank, task)

    def collective(self, task: Task) -> Timing:
        """Return the measured duration of a collective, else that of the laptop preset."""
        remote = self.cluster.is_measured_as_remote(task.group)
        if not self.profile.collectives_of(remote):
            self._unmeasured.add("collectives")
        return super().collective(task)

    def busy_share(self, rank: int, task: Task) -> float:
        """Return the share of its time in which a pass computes: all of a measured one."""
        if self._measured_key(task) is not None:
            return 1.0
        return super().busy_share(rank, task)

    def notes(self) -> list[str]:
        """Return which durations are not measured ones."""
        notes = []
        if self.estimated:
            number = len(self.estimated) + len(self.measured)
            covered = f"{len(self.measured)} of the" if self.measured else "none of the"
            others = "the others" if self.measured else "all"
            dtype = self.experiment.workload.dtype
            peak = "its" if dtype in self.profile.peak_flops else "the laptop preset's"
            notes.append(
                f"{covered} {number} passes of this plan are in the profile; {others} were "
                f"estimated with {peak} peak rate of {dtype}; `twinline calibrate` with this "
                "experiment measures them"
            )
        if self._unmeasured:
            notes.append(
                f"no {' or '.join(sorted(self._unmeasured))} in the profile: the laptop preset's "
                "were taken; `twinline calibrate` with this experiment measures them"
            )
        return notes

    def _key(self, op: Op, task: Task) -> PassKey:
        experiment = self.experiment
        return key_of_task(task, op, self.layers, experiment.workload, experiment.parallel)

    def _measured_key(self, task: Task) -> PassKey | None:
        """Return the key under which a pass was measured; None: it was not."""
        ops = (Op.RECOMPUTE, Op.FORWARD) if task.op is Op.RECOMPUTE else (task.op,)
        keys = (self._key(op, task) for op in ops)
        return next((key for key in keys if str(key) in self.profile.passes), None)


class MeasuredCosts(EstimatedCosts):
    """Measured durations, which have a spread, and the host time of a profile.

    Attributes:
        rounds: rounds of calibration, in each of which ranks had a speed of their own.
    """

    def __init__(self, program: Program, durations: MeasuredDurations) -> None:
        super().__init__(program, durations)
        self.rounds = durations.profile.rounds
        self._count = len(program)
        self._draws: list[int] | None = None
        self._slowness = [1.0]

    @property
    def has_host(self) -> bool:
        """True: calibration has measured the time of the host."""
        return True

    def alone(self, instruction: Instruction) -> float:
        """Return the mean duration of an instruction, or the sampled one."""
        timing = self.durations.timing(instruction.rank, instruction.task)
        if self._draws is None:
            seconds = timing.mean_s
        else:
            seconds = timing.tenths[self._draws[instruction.uid]]
        if instruction.task.stream == COMPUTE_STREAM:
            seconds *= self._slowness[instruction.rank % len(self._slowness)]
        return seconds * self.speeds.factor(instruction)

    def sampled(self, seed: int, step: int) -> MeasuredCosts:
        """Return the costs of one step, with every duration sampled from the measured ones.

        The passes of each rank are as slow as in one round of calibration; steps that follow each
        other take the rounds in turn, so that each is used equally often. Sampling matters because
        whoever waits for several ranks waits for the slowest.
        """
        costs = copy(self)
        costs._slowness = self.rounds[step % len(self.rounds)] if self.rounds else [1.0]
        generator = np.random.default_rng((seed, step))
        costs._draws = generator.integers(0, TENTHS, self._count).tolist()
        return costs
