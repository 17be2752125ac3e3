"""What is stated or paced takes exactly that, times the pace."""

from __future__ import annotations

from simulator import Experiment, Program, load, lower
from simulator.cluster.cluster import Cluster
from simulator.cluster.resolve import resolve
from simulator.engine.costs import AnyCosts, costs_of
from simulator.experiment.workload import Workload

MLP = [
    "workload.model=mlp",
    "workload.layers=2",
    "workload.hidden=64",
    "workload.sequence=8",
    "parallel.pipeline=1",
    "parallel.microbatches=1",
]
A100 = "cluster.preset=dgx-a100-80gb"

FP32, BF16 = Workload(dtype="fp32"), Workload(dtype="bf16")


def model(*overrides: str, cluster: Cluster | None = None) -> tuple[Program, AnyCosts]:
    experiment = load(None, [*MLP, *overrides])
    program = lower(experiment)
    return program, costs_of(program, experiment, cluster or resolve(experiment))


def by_label(program: Program, costs: AnyCosts, rank: int = 0) -> dict[str, float]:
    return {i.label: costs.seconds(i) for i in program.ranks[rank]}


def test_pace_stretches_everything() -> None:
    settings = (A100, "parallel.pipeline=2", "parallel.data=2")
    program, normal = model(*settings)
    _, slow = model(*settings, "run.pace=8")
    assert [slow.seconds(i) for i in program] != [0.0] * len(program)
    paced_program, paced = model(*settings, "run.pace=8")
    assert paced_program.hash() == program.hash()
    for mine, theirs in zip(program, paced_program, strict=True):
        assert paced.seconds(theirs) == 8 * normal.seconds(mine)


def test_unit_costs_are_the_users_seconds() -> None:
    experiment: Experiment = load(
        None,
        [
            *("workload.model=unit", "workload.forward=1", "workload.backward_input=2"),
            *("workload.backward_weight=4", "workload.p2p=8", "parallel.pipeline=2"),
            "parallel.microbatches=1",
        ],
    )
    program = lower(experiment)
    costs = costs_of(program, experiment, resolve(experiment))
    assert by_label(program, costs) == {"0RECV_B0": 8, "0F0": 1, "0SEND_F0": 8, "0B0": 6}
