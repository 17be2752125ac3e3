"""A walk that skips periods gives the times of one that does not, on random plans and costs."""

from __future__ import annotations

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine, simulate
from simulator.engine.replica_folding import folding_of
from simulator.program.program import Program
from simulator.program.repeating_walk import RepeatingWalk, Skip
from simulator.strategies.schedules.registry import SCHEDULES
from written_out import written_out


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


@st.composite
def plans(draw) -> Experiment:
    """Any plan on GPUs with many microbatches."""
    pipeline = draw(st.sampled_from([1, 2, 4]))
    parallel = {
        "pipeline": pipeline,
        "schedule": draw(st.sampled_from(sorted(SCHEDULES))),
        "virtual_stages": draw(st.sampled_from([1, 2])),
        "microbatches": draw(st.sampled_from([8, 16, 32])),
        "data": draw(st.sampled_from([1, 2])),
        "tensor": draw(st.sampled_from([1, 2])),
        "sequence_parallel": draw(st.booleans()),
        "zero": draw(st.sampled_from([0, 1, 2, 3])),
    }
    model = draw(st.sampled_from(["gpt", "mlp", "unit"]))
    workload = {"model": model}
    if model == "gpt":  # larger ones share their links
        workload |= {"hidden": draw(st.sampled_from([64, 2048])), "sequence": 512, "heads": 8}
    if model == "unit":
        workload |= {
            "forward": 1.0,
            "backward_input": draw(st.sampled_from([1.0, 0.3])),
            "p2p": 0.1,
        }
    try:
        return plan_of(workload, parallel, horizon=draw(st.sampled_from([1, 1, 3])))
    except ExperimentError:
        return reject()


@settings(max_examples=50, deadline=None)
@given(plans())
def test_what_is_skipped_has_the_times_of_what_is_not(experiment: Experiment) -> None:
    cluster = resolve(experiment)
    try:
        folding = folding_of(experiment, cluster)
        program = lower(experiment, folding.list_of if folding else ())
    except ExperimentError:
        reject()
    costs = costs_of(program, experiment, cluster)
    skipping = Engine(program, costs).run()
    stepping = simulate(written_out(program), costs)
    for column in ("posted", "start", "end"):
        found, expected = getattr(skipping, column), getattr(stepping, column)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * stepping.iteration_time)
    for found, expected in zip(skipping.memory, stepping.memory, strict=True):
        assert found.peak == expected.peak


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
