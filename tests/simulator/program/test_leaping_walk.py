"""A walk that leaps gives the times of one that does not, on random plans and costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from as_stepped import assert_as_stepped, gpu_plans
from simulator import Experiment, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine
from simulator.program.leaping_walk import LeapingWalk
from simulator.program.program import Program


@settings(max_examples=50, deadline=None)
@given(gpu_plans(microbatches=(1, 2, 4, 8)))
def test_leaps_change_no_time(experiment: Experiment) -> None:
    assert_as_stepped(experiment)


def tensor_parallel(**keys: object) -> tuple[Program, Engine]:
    """Return a folded plan in which every collective meets nobody, and its engine."""
    experiment = parse(
        {
            "workload": {"model": "gpt", "layers": 8, "global_batch": 16, "heads": 8},
            "parallel": {"pipeline": 1, "tensor": 8, "microbatches": 16, **keys},
            "cluster": {"preset": "dgx-h100"},
        }
    )
    program = lower(experiment, [0] * 8)
    return program, Engine(program, costs_of(program, experiment, resolve(experiment)))


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_most_of_a_plan_whose_ranks_are_alike_is_leapt_over(
    sequence_parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, engine = tensor_parallel(sequence_parallel=sequence_parallel)
    stepped: list[int] = []
    post = Engine.post

    def counted(self, uid: int, ready: float) -> None:
        stepped.append(self is engine)
        post(self, uid, ready)

    monkeypatch.setattr(Engine, "post", counted)
    engine.run()
    assert sum(stepped) < len(program) / 8
    assert len(stepped) < len(program) / 4  # with the simulations of runs alone


def test_a_walk_in_no_time_leaps_too() -> None:
    program, _ = tensor_parallel()
    walk = LeapingWalk(program)
    walk.advance()
    assert walk.stuck() == []
    assert not np.any(walk.times())


def test_costs_that_differ_from_call_to_call_are_not_leapt_over() -> None:
    _, engine = tensor_parallel()
    assert engine.leaps()
    laptop = parse({"workload": {"layers": 4}, "parallel": {"pipeline": 2}})
    program = lower(laptop)
    assert not Engine(program, costs_of(program, laptop, resolve(laptop))).leaps()
