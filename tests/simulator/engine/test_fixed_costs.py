"""What is stated or paced takes exactly that, times the pace."""

from __future__ import annotations

from simulator import Experiment, load, lower
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from small_mlp import by_label, model

A100 = "cluster.preset=dgx-a100-80gb"


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
