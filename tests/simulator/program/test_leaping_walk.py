"""A walk that leaps gives the times of one that does not, on random plans and costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine, simulate
from simulator.engine.replica_folding import folding_of
from simulator.program.leaping_walk import LeapingWalk
from simulator.program.program import Program
from simulator.strategies.schedules.registry import SCHEDULES
from written_out import written_out


@st.composite
def plans(draw) -> Experiment:
    """Any small plan on GPUs, of whatever schedules and degrees there are."""
    pipeline, zero = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([0, 0, 1, 2, 3]))
    microbatches = draw(st.sampled_from([1, 2, 4, 8]))
    parallel = {
        "pipeline": pipeline,
        "schedule": draw(st.sampled_from(sorted(SCHEDULES))),
        "virtual_stages": draw(st.sampled_from([1, 2])),
        "microbatches": microbatches,
        "data": draw(st.sampled_from([1, 2, 3])),
        "tensor": draw(st.sampled_from([1, 2])),
        "context": draw(st.sampled_from([1, 1, 2])),
        "sequence_parallel": draw(st.booleans()),
        "recompute": draw(st.sampled_from(["none", "selective", "full"])),
        "zero": zero,
        "bucket_mb": draw(st.sampled_from([0.1, 25.0])),
    }
    workload = {
        "model": draw(st.sampled_from(["gpt", "mlp", "unit"])),
        "layers": draw(st.sampled_from([4, 8])),
        "global_batch": 6 * microbatches,
    }
    if workload["model"] == "gpt":  # larger ones share their links
        workload |= {"hidden": draw(st.sampled_from([64, 2048])), "sequence": 512, "heads": 8}
    cluster = {"preset": draw(st.sampled_from(["dgx-h100", "dgx-a100-80gb"])), "nodes": 6}
    try:
        return parse({"workload": workload, "parallel": parallel, "cluster": cluster})
    except ExperimentError:
        return reject()


@settings(max_examples=60, deadline=None)
@given(plans())
def test_leaps_change_no_time(experiment: Experiment) -> None:
    cluster = resolve(experiment)
    try:
        folding = folding_of(experiment, cluster)
        program = lower(experiment, folding.list_of if folding else ())
    except ExperimentError:
        reject()
    costs = costs_of(program, experiment, cluster)
    leaping = simulate(program, costs)
    stepping = simulate(written_out(program), costs)
    for column in ("posted", "start", "end"):
        found, expected = getattr(leaping, column), getattr(stepping, column)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * stepping.iteration_time)
    for found, expected in zip(leaping.memory, stepping.memory, strict=True):
        assert found.peak == expected.peak


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
