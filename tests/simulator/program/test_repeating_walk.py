"""A walk that skips periods gives the times of one that does not, on random plans and costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from as_stepped import assert_as_stepped, gpu_plans
from simulator import Experiment, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine, simulate
from simulator.program.program import Program
from simulator.program.repeating_walk import RepeatingWalk, Skip


@pytest.fixture
def skips(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RepeatingWalk, Skip]]:
    """What walks have skipped since the test began."""
    found: list[tuple[RepeatingWalk, Skip]] = []
    jump = RepeatingWalk._jump

    def counted(self: RepeatingWalk, skip: Skip) -> None:
        found.append((self, skip))
        jump(self, skip)

    monkeypatch.setattr(RepeatingWalk, "_jump", counted)
    return found


def plan_of(workload: dict, parallel: dict, nodes: int = 4, horizon: int = 1) -> Experiment:
    microbatches = parallel.get("microbatches", 1)
    return parse(
        {
            "workload": {"model": "gpt", "layers": 8, "global_batch": 2 * microbatches} | workload,
            "parallel": {"pipeline": 1, "microbatches": 1} | parallel,
            "cluster": {"preset": "dgx-h100", "nodes": nodes},
            "run": {"horizon": horizon},
        }
    )


@settings(max_examples=30, deadline=None)
@given(gpu_plans(microbatches=(8, 12, 20), horizons=(1, 1, 3)))
def test_what_is_skipped_has_the_times_of_what_is_not(experiment: Experiment) -> None:
    assert_as_stepped(experiment)


@pytest.mark.parametrize(
    "parallel",
    [
        {"pipeline": 4, "microbatches": 64},
        {"pipeline": 2, "tensor": 2, "data": 2, "microbatches": 64, "sequence_parallel": True},
        {"pipeline": 2, "virtual_stages": 2, "schedule": "interleaved-1f1b", "microbatches": 64},
        {"pipeline": 4, "schedule": "zb-h1", "microbatches": 64},
    ],
)
def test_most_of_a_long_pipeline_is_skipped(
    parallel: dict, skips: list[tuple[RepeatingWalk, Skip]]
) -> None:
    experiment = plan_of({"global_batch": 128}, parallel)
    program = lower(experiment)
    skips.clear()
    Engine(program, costs_of(program, experiment, resolve(experiment))).run()
    skipped = sum(int(skip.shift.sum()) * skip.periods for _, skip in skips)
    assert skipped > len(program) / 2


def test_steps_that_are_alike_are_skipped(skips: list[tuple[RepeatingWalk, Skip]]) -> None:
    experiment = plan_of({"global_batch": 16}, {"data": 2, "microbatches": 4}, horizon=12)
    program = lower(experiment)
    skips.clear()
    timeline = Engine(program, costs_of(program, experiment, resolve(experiment))).run()
    assert skips
    alone = plan_of({"global_batch": 16}, {"data": 2, "microbatches": 4})
    once = lower(alone)
    one = simulate(once, costs_of(once, alone, resolve(alone)))
    assert timeline.iteration_time == pytest.approx(12 * one.iteration_time, rel=1e-9)


def pipeline() -> tuple[Experiment, Program]:
    unit = {"model": "unit", "forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0}
    experiment = parse(
        {
            "workload": unit | {"p2p": 0.1},
            "parallel": {"pipeline": 4, "microbatches": 64},
            "cluster": {"preset": "dgx-h100"},
        }
    )
    return experiment, lower(experiment)


def test_costs_that_differ_from_call_to_call_are_not_skipped(
    skips: list[tuple[RepeatingWalk, Skip]],
) -> None:
    experiment, program = pipeline()
    costs = costs_of(program, experiment, resolve(experiment))
    skips.clear()
    Engine(program, costs).run()
    assert skips
    skips.clear()
    costs.are_alike = lambda: False  # type: ignore[method-assign]
    Engine(program, costs).run()
    assert not skips


def test_a_walk_in_no_time_skips_and_still_finds_who_waits_for_ever(
    skips: list[tuple[RepeatingWalk, Skip]],
) -> None:
    _, program = pipeline()
    skips.clear()
    walk = RepeatingWalk(program)
    walk.complete()
    assert skips
    assert walk.stuck() == []
    stopped = RepeatingWalk(program)
    last = program.begins[1] - 1  # of the first rank
    stopped._waits[stopped._begin[last] :] = [last, *stopped._waits[stopped._begin[last] + 1 :]]
    stopped.complete()
    assert [instruction.uid for instruction in stopped.stuck()] == [last]
