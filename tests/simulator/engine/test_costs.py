"""Which costs an experiment has on a cluster."""

from __future__ import annotations

import pytest

from simulator.cluster.profile import Profile
from simulator.cluster.resolve import from_profile
from simulator.engine.estimated_costs import EstimatedCosts, EstimatedDurations
from simulator.engine.fixed_costs import FixedCosts, UnitDurations
from simulator.engine.measured_costs import MeasuredCosts, MeasuredDurations
from small_mlp import model

A100 = "cluster.preset=dgx-a100-80gb"


@pytest.mark.parametrize("overrides", [[A100], ["run.pace=2"], ["workload.model=unit"]])
def test_devices_paced_and_unit_runs_share_nothing(overrides: list[str]) -> None:
    program, costs = model(*overrides)
    assert costs.capacities == {}
    assert all(costs.demand((instruction,)) == () for instruction in program)
    assert all(costs.delay(instruction) == 0 for instruction in program)


MEASURED = from_profile(Profile({"cores": 2}))


@pytest.mark.parametrize(
    ("overrides", "cluster", "costs", "durations"),
    [
        ([A100], None, EstimatedCosts, EstimatedDurations),
        ([], None, EstimatedCosts, EstimatedDurations),
        ([], MEASURED, MeasuredCosts, MeasuredDurations),
        (["run.pace=2"], None, FixedCosts, EstimatedDurations),
        (["run.pace=2"], MEASURED, FixedCosts, MeasuredDurations),
        (["workload.model=unit"], None, FixedCosts, UnitDurations),
        (["workload.model=unit", "run.pace=2"], MEASURED, FixedCosts, UnitDurations),
    ],
)
def test_costs_follow_from_experiment_and_cluster(overrides, cluster, costs, durations) -> None:
    _, found = model(*overrides, cluster=cluster)
    assert (type(found), type(found.durations)) == (costs, durations)
