"""Predict the timeline of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from simulator.analysis.link_bytes import LinkBytes, link_bytes
from simulator.analysis.memory_fit import memory_fit
from simulator.analysis.metrics import metrics_of
from simulator.analysis.results import RankMetrics, Result
from simulator.analysis.step_times import StepTimes
from simulator.analysis.validated import caveats
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.cluster.saved_profile import saved_profile
from simulator.engine.costs import AnyCosts, costs_of
from simulator.engine.engine import simulate
from simulator.engine.host_time import host_notes
from simulator.engine.measured_costs import MeasuredCosts
from simulator.engine.replica_folding import folding_of
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.arrival_staleness import arrival_staleness, dropped_pushes
from simulator.program.errors import ProgramError
from simulator.program.program import Program
from simulator.program.staleness import staleness_of
from simulator.strategies.lowering import lower, refusal_of
from simulator.strategies.schedules.checks import updates_within_a_step
from simulator.timeline.expansion import expanded
from simulator.timeline.memory import usual_memory
from simulator.timeline.statistics import over_iterations, usual_iteration
from simulator.timeline.timeline import Timeline
from simulator.workloads.expert_load import predicted_routing

STEPS = 25
INSTRUCTIONS = 1_000_000
"""Steps simulated if durations have a spread, and the instructions of all of them at most."""

EACH_UP_TO = 64
"""Ranks up to which a prediction shows every one, those with the times of another, too."""


@dataclass(kw_only=True, repr=False)
class Prediction(Result):
    """One simulated training step, or those of ``run.horizon``.

    Attributes:
        experiment, program, cluster: what was simulated, and on what. The program may have
            fewer lists than ranks, and `recorded` a row for each list.
    """

    experiment: Experiment
    program: Program
    cluster: Cluster

    @cached_property
    def timeline(self) -> Timeline:
        """The times of every instruction: of each rank up to 64, else of each list."""
        if not _shows_each(self.program):
            return self.recorded
        return expanded(self.recorded, self.program.list_of)

    @cached_property
    def links(self) -> list[LinkBytes] | None:
        """The bytes over every link, the busiest first; None: not all ranks were simulated."""
        return link_bytes(self.program, self.cluster)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of ``twinline predict`` (see ``docs/json.md``)."""
        plain = self.metrics.to_json() | {"ranks_simulated": self.program.num_ranks}
        if self.statistics:
            plain |= self.statistics.to_json()
        plain["staleness"] = [stage.to_json() for stage in self.staleness]
        if self.moe:
            plain["moe"] = dict(vars(self.moe))
        plain["cluster"] = self.cluster.name
        plain["links"] = self.links and [link.to_json() for link in self.links]
        plain["memory_fit"] = self.memory_fit and self.memory_fit.to_json()
        return plain | {"notes": self.notes}


def predict(
    experiment: Experiment,
    cluster: Cluster | Literal["saved"] | None = None,
    program: Program | None = None,
) -> Prediction:
    """Simulate one training step of an experiment, or those of its ``run.horizon``.

    The result depends on nothing but the arguments and the files that they name. Ranks that do
    the same are simulated once (`simulator.engine.replica_folding`).

    Args:
        experiment: what to simulate.
        cluster: to predict for; None: what the experiment names, else the laptop preset;
            ``"saved"``: what the experiment names, else this machine as this user's saved
            profile has it, else the laptop preset.
        program: of the experiment, if it has been lowered already; none of it is left out.

    Raises:
        ExperimentError: the plan has no program, or `cluster` cannot hold it, or is none.
    """
    notes: list[str] = []
    cluster = cluster_of_prediction(experiment, cluster, notes)
    mesh = experiment.mesh
    if program is None:
        folding = folding_of(experiment, cluster)
        program = lower(experiment, folding.list_of if folding else ())
    costs = costs_of(program, experiment, cluster)
    try:
        timeline, times = simulated(program, costs, experiment.run.seed)
    except ProgramError as error:  # a policy of the user's own serves nobody
        raise refusal_of(experiment, program.list_of, error) from None
    timeline.meta = metadata("predicted", experiment, program) | {"cluster": cluster.name}
    if isinstance(costs, MeasuredCosts):
        timeline.statistics = over_iterations(times)
    notes += costs.durations.notes()
    notes += host_notes(experiment, program, cluster, float(timeline.end.max(initial=0.0)))
    if not _shows_each(program):
        count = program.num_ranks
        which = "1 was simulated, the others equal it"
        if count > 1:
            which = f"{count} differ and were simulated, the others equal them"
        notes.append(f"{program.world_size} ranks; {which}")
    notes += experiment.notes
    notes += cluster.notes
    notes += caveats(experiment, cluster)
    models_memory = experiment.workload.family.has_parameters  # `unit` is times alone
    fit = memory_fit(timeline, cluster) if models_memory else None
    if fit is not None and not fit.fits:
        notes.append(str(fit))
    peak_flops = cluster.peak_flops(experiment.workload.dtype, experiment.world_size)
    of_workers = arrival_staleness(program, timeline.decisions)
    dropped = dropped_pushes(program, of_workers)
    metrics = metrics_of(timeline, experiment, peak_flops, timeline.meta["hash"], dropped)
    if _shows_each(program):
        metrics = replace(metrics, ranks=_of_each(metrics.ranks, program))
    if experiment.run.horizon > 1 and updates_within_a_step(experiment):
        metrics = replace(metrics, steps=_with_drained(metrics.steps, experiment, cluster))
    return Prediction(
        experiment=experiment,
        program=program,
        cluster=cluster,
        recorded=timeline,
        metrics=metrics,
        staleness=[
            *staleness_of(program, list(mesh.group(0, "pipeline"))),
            *of_workers,
        ],
        moe=predicted_routing(experiment) if experiment.workload.family.has_experts else None,
        memory_fit=fit,
        notes=notes,
    )


def cluster_of_prediction(
    experiment: Experiment, cluster: Cluster | Literal["saved"] | None, notes: list[str]
) -> Cluster:
    """Return the cluster that an experiment is predicted for; see `predict`.

    Args:
        experiment: what is predicted.
        cluster: the one given.
        notes: get a sentence if something stands in for this machine.
    """
    if cluster == "saved":
        return resolve(experiment, profile_for(experiment, notes))
    if cluster is None:
        return resolve(experiment)
    if isinstance(cluster, Cluster):
        return cluster
    raise ExperimentError(
        f"cluster = {cluster!r}: allowed: a Cluster, 'saved' or None; the experiment names a "
        "preset or a file: experiment(preset=…), experiment(file=…)"
    )


def _with_drained(
    steps: StepTimes | None, experiment: Experiment, cluster: Cluster
) -> StepTimes | None:
    """Return times of steps beside that of a step after which the pipeline is drained."""
    one = experiment.run.model_copy(update={"horizon": 1})
    alone = experiment.model_copy(update={"run": one})
    return steps and replace(steps, drained_s=predict(alone, cluster).iteration_time_s)


def profile_for(experiment: Experiment, notes: list[str]) -> Profile | None:
    """Return this machine's saved profile; a note says what is assumed if there is none."""
    profile = saved_profile(experiment, notes)
    needed = not experiment.is_for_cluster and experiment.workload.family.has_parameters
    if profile is None and needed and not notes:
        notes.append(
            "no profile of this machine is saved, so the laptop preset stands in for it; "
            "`twinline calibrate` measures this machine"
        )
    return profile


def simulated(program: Program, costs: AnyCosts, seed: int) -> tuple[Timeline, list[float]]:
    """Return the predicted timeline and the iteration time of every simulated step, seconds.

    One step, if the costs are certain. Where they were measured and have a spread, many
    steps with durations drawn from it, and of each instruction the median, as a measurement
    takes it: whoever waits for several waits for the slowest, so that a step of mean
    durations is shorter than the mean step.
    """
    if not isinstance(costs, MeasuredCosts):
        timeline = simulate(program, costs)
        return timeline, [timeline.iteration_time]
    rounds = max(len(costs.rounds), 1)
    count = max(min(-(-STEPS // rounds) * rounds, INSTRUCTIONS // max(len(program), 1)), 1)
    steps = [simulate(program, costs.sampled(seed, number)) for number in range(count)]
    times = [step.iteration_time for step in steps]
    if program.queues:  # medians would mix meetings that differ
        return steps[usual_iteration(times)], times
    columns = [
        np.array([getattr(step, column) for step in steps]) for column in ("posted", "start", "end")
    ]
    memory = []
    for row, of_rank in enumerate(zip(*(step.memory for step in steps), strict=True)):
        mine = steps[0].rank == row
        posted, end = columns[0][:, mine], columns[2][:, mine]
        memory.append(usual_memory(of_rank, program.ranks[row], posted, end, times))
    medians = [np.median(column, axis=0) for column in columns]
    timeline = Timeline.of_program(program, *medians, memory=memory)
    return timeline, times


def _shows_each(program: Program) -> bool:
    """Return whether a prediction shows every rank of a program."""
    return not program.is_folded or program.world_size <= EACH_UP_TO


def _of_each(rows: Sequence[RankMetrics], program: Program) -> list[RankMetrics]:
    """Return the figures of every rank, from those of every list."""
    return [replace(rows[row], rank=rank) for rank, row in enumerate(program.list_of)]


def metadata(source: str, experiment: Experiment, program: Program) -> dict[str, Any]:
    """Return what a saved timeline says about its origin."""
    return {
        "source": source,
        "hash": program.hash(),
        "experiment": experiment.model_dump(exclude_unset=True),
        "roles": [role.to_json() for role in experiment.roles],
    }
