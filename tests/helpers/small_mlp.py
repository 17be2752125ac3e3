"""A small MLP on one rank, and what its instructions cost."""

from __future__ import annotations

from simulator import Program, load, lower
from simulator.cluster.cluster import Cluster
from simulator.cluster.resolve import resolve
from simulator.engine.costs import AnyCosts, costs_of

MLP = [
    "workload.model=mlp",
    "workload.layers=2",
    "workload.hidden=64",
    "workload.sequence=8",
    "parallel.pipeline=1",
    "parallel.microbatches=1",
]


def model(*overrides: str, cluster: Cluster | None = None) -> tuple[Program, AnyCosts]:
    has_shape = "workload.model=unit" not in overrides
    base = [setting for setting in MLP if has_shape or not setting.startswith("workload.")]
    experiment = load(None, [*base, *overrides])
    program = lower(experiment)
    return program, costs_of(program, experiment, cluster or resolve(experiment))


def by_label(program: Program, costs: AnyCosts, rank: int = 0) -> dict[str, float]:
    return {i.label: costs.seconds(i) for i in program.ranks[rank]}
