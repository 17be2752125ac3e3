"""The choice of costs: stated, estimated or measured."""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.engine.estimated_costs import EstimatedCosts, EstimatedDurations
from simulator.engine.fixed_costs import FixedCosts, UnitDurations
from simulator.engine.measured_costs import MeasuredCosts, MeasuredDurations
from simulator.experiment.experiment import Experiment
from simulator.program.program import Program

AnyCosts = FixedCosts | EstimatedCosts
"""The costs that `costs_of` returns; `MeasuredCosts` are a kind of `EstimatedCosts`."""


def costs_of(program: Program, experiment: Experiment, cluster: Cluster) -> AnyCosts:
    """Return the costs of an experiment on a cluster.

    Those of the model `unit` and of paced runs are fixed. Otherwise they are measured if the
    cluster has a profile, and estimated if not.
    """
    pace = experiment.run.pace
    if not experiment.workload.family.has_parameters:
        return FixedCosts(UnitDurations(experiment, cluster), pace or 1.0)
    if cluster.profile is not None:
        measured = MeasuredDurations(experiment, cluster, cluster.profile)
        return FixedCosts(measured, pace) if pace else MeasuredCosts(program, measured)
    estimated = EstimatedDurations(experiment, cluster)
    return FixedCosts(estimated, pace) if pace else EstimatedCosts(program, estimated)
