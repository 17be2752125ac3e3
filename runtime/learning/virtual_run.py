"""The virtual run of a plan: when each instruction of a whole training would happen on a cluster.

A training is one program of as many steps, so that nothing is drained between them, staleness goes
on, and jitter differs from step to step. Only a learning rate that follows the loss needs
iterations, between which all ranks know it: these follow each other, each with the program of
``run.horizon``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.engine.measured_costs import MeasuredCosts
from simulator.engine.rank_speeds import RankSpeeds
from simulator.engine.replica_folding import folding_of
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.accept_queue import Decision
from simulator.program.errors import ProgramError
from simulator.program.program import Program
from simulator.strategies.lowering import lower, refusal_of
from simulator.timeline.timeline import Floats, Integers, Timeline

PROBE_STEPS = 8
"""A program of so many steps tells how long one takes."""

MOST_STEPS = 1_000_000


@dataclass(frozen=True, eq=False)
class VirtualRun:
    """The program of a training, and how often it is executed.

    Attributes:
        experiment: what is trained; its horizon is that of the program.
        program: with a list for every rank.
        iterations: how often.
        cluster: whose time it is.
    """

    experiment: Experiment
    program: Program
    iterations: int
    cluster: Cluster

    @property
    def steps(self) -> int:
        """The training steps of every worker."""
        return self.iterations * self.experiment.run.horizon

    def timed(self) -> Iterator[TimedProgram]:
        """Yield the times of every iteration; one begins when the one before has ended."""
        begin, known = 0.0, self.first
        differ = RankSpeeds(self.experiment).vary or self.cluster.profile is not None
        for number in range(self.iterations):
            if number and differ:
                known = predicted(self.experiment, self.program, self.cluster, number)
            yield known.later(begin)
            begin += known.timeline.iteration_time

    @cached_property
    def first(self) -> TimedProgram:
        """The times of the first iteration."""
        return predicted(self.experiment, self.program, self.cluster)


@dataclass(frozen=True, eq=False)
class TimedProgram:
    """The times of all instructions of a program.

    Attributes:
        timeline, predicted: of the lists that were simulated; it may be fewer than there are ranks.
        spans: by uid of the whole program, the span that has its times.
        begin: when it begins, seconds.
    """

    timeline: Timeline
    predicted: Program
    spans: Integers
    begin: float = 0.0

    @property
    def start(self) -> Floats:
        """When each instruction of the whole program starts, by uid, seconds."""
        found: Floats = self.timeline.start[self.spans] + self.begin
        return found

    @property
    def end(self) -> Floats:
        """When each instruction of the whole program ends, by uid, seconds."""
        found: Floats = self.timeline.end[self.spans] + self.begin
        return found

    @property
    def decisions(self) -> Sequence[Decision]:
        """Who was served by whom."""
        return self.timeline.decisions

    def later(self, begin: float) -> TimedProgram:
        """Return the same, begun at another time."""
        return TimedProgram(self.timeline, self.predicted, self.spans, begin)


def predicted(
    experiment: Experiment, program: Program, cluster: Cluster, number: int = 0
) -> TimedProgram:
    """Return the predicted times of a program.

    Args:
        experiment: what it is of.
        program: with a list for every rank.
        cluster: to predict for.
        number: of the iteration; what is drawn differs from one to the other.
    """
    folding, simulated = folding_of(experiment, cluster), program
    if folding is not None:
        simulated = lower(experiment, folding.list_of)
    if number and RankSpeeds(experiment).vary:
        choice = experiment.cluster
        seed = experiment.run.seed if choice.jitter_seed is None else choice.jitter_seed
        other = choice.model_copy(update={"jitter_seed": seed + number})
        experiment = experiment.model_copy(update={"cluster": other})
    costs = costs_of(simulated, experiment, cluster)
    if isinstance(costs, MeasuredCosts):
        costs = costs.sampled(experiment.run.seed, number)
    try:
        timeline = simulate(simulated, costs)
    except ProgramError as error:  # a policy of the user's own serves nobody
        raise refusal_of(experiment, simulated.list_of, error) from None
    lengths = [len(columns) for columns in simulated.columns]
    spans = [
        np.arange(simulated.begins[row], simulated.begins[row] + lengths[row])
        for row in simulated.list_of
    ]
    return TimedProgram(timeline, simulated, np.concatenate(spans))


def of_steps(experiment: Experiment, steps: int, cluster: Cluster) -> VirtualRun:
    """Return a training of so many steps, or of a few more where a period has to be whole."""
    horizon, iterations = shape_of(experiment, steps)
    run = experiment.run.model_copy(update={"horizon": horizon})
    longer = experiment.model_copy(update={"run": run})
    return VirtualRun(longer, lower(longer), iterations, cluster)


def until(experiment: Experiment, end_s: float, cluster: Cluster) -> VirtualRun:
    """Return a training in which every worker is still busy at a time, in seconds.

    Raises:
        ExperimentError: it would have too many steps.
    """
    steps = PROBE_STEPS
    while True:
        found = of_steps(experiment, steps, cluster)
        covered = _covered(found)
        if covered >= end_s:
            return found
        steps = math.ceil(1.1 * found.steps * end_s / covered) if covered else MOST_STEPS + 1
        if steps > MOST_STEPS:
            raise ExperimentError(
                f"until {end_s:g} s: needs more than {MOST_STEPS:,} training steps; allowed: up to "
                f"{covered * MOST_STEPS / found.steps:.3g} s"
            )


def _covered(run: VirtualRun) -> float:
    """Return until when every worker is busy, seconds."""
    first = run.first
    ends = np.split(first.end, run.program.begins[1:])
    workers = ends[: run.experiment.parallel.num_trainers]
    busy = min(float(of_rank.max(initial=0.0)) for of_rank in workers)
    return (run.iterations - 1) * first.timeline.iteration_time + busy


def shape_of(experiment: Experiment, steps: int) -> tuple[int, int]:
    """Return the steps of the program of a training, and how often it is executed.

    Args:
        experiment: what is trained.
        steps: the least number of all steps.
    """
    if experiment.run.learning_rate_schedule == "plateau":
        horizon = experiment.run.horizon
        return horizon, -(-steps // horizon)
    parallel = experiment.parallel
    before, period = parallel.local_after or 0, parallel.sync_period or 1
    return before + max(-(-(steps - before) // period), 1) * period, 1
