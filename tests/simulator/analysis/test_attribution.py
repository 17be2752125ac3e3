"""A cause that was planted is named: the measurement is a simulation with one cost changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import load, lower
from simulator.analysis.comparison import Comparison, compare_timelines
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.program.operations import COMMUNICATION, MESSAGES
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.timeline.timeline import Timeline
from simulator.units import seconds

UNIT = ["workload.model=unit", "workload.p2p=0.001", "parallel.pipeline=4"]
GPT = ["workload.layers=4", "workload.hidden=64", "cluster.preset=dgx-a100-80gb"]
DATA = [*GPT, "parallel.pipeline=1", "parallel.data=2", "parallel.microbatches=2"]


class Planted(Costs):
    """Other costs, some of them times `factor` plus `seconds`, or later by `gap`."""

    def __init__(self, costs: Costs, where, factor=1.0, seconds=0.0, gap=0.0):
        self.costs, self.capacities = costs, costs.capacities
        self.where, self.factor, self.extra, self.gap = where, factor, seconds, gap
        self.delay_demand, self.demand = costs.delay_demand, costs.demand
        self.weight = costs.weight

    def seconds(self, instruction):
        alone = self.costs.seconds(instruction)
        return alone * self.factor + self.extra if self.where(instruction) else alone

    def delay(self, instruction):
        return self.costs.delay(instruction) + (self.gap if self.where(instruction) else 0.0)


def plant(settings: list[str], where, **change: float) -> Comparison:
    experiment = load(None, settings)
    program, cluster = lower(experiment), resolve(experiment)
    predicted = simulate(program, costs_of(program, experiment, cluster))
    measured = simulate(
        program, Planted(costs_of(program, experiment, cluster), where=where, **change)
    )
    return compare_timelines(predicted, measured, program)


def computes(*ranks: int):
    return lambda i: i.task.stream == COMPUTE_STREAM and i.rank in ranks


def between(source: int, target: int):
    """Both sides of a message."""

    def where(instruction):
        task = instruction.task
        ends = (instruction.rank, task.peer)
        return task.op in MESSAGES and (ends if task.op == "SEND" else ends[::-1]) == (
            source,
            target,
        )

    return where


RANKS, FACTORS = st.integers(0, 3), st.floats(1.1, 20.0)


@settings(max_examples=25, deadline=None)
@given(RANKS, FACTORS, st.sampled_from(["gpipe", "1f1b", "zb-h1", "naive"]))
def test_a_slow_rank_of_a_pipeline_is_named(rank, factor, schedule):
    found = plant([*UNIT, f"parallel.schedule={schedule}"], computes(rank), factor=factor)
    assert found.cause.startswith(f"compute of rank {rank} (")
    assert found.causes[0].change == pytest.approx(factor - 1)
    assert found.causes[0].adds_s == pytest.approx(found.attribution["compute_s"])
    assert found.attribution["communication_s"] == pytest.approx(0, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1), FACTORS)
def test_a_slow_replica_is_named(rank, factor):
    found = plant(DATA, computes(rank), factor=factor)
    assert found.cause.startswith(f"compute of rank {rank} (+")


@settings(max_examples=10, deadline=None)
@given(st.floats(0.2, 5.0).filter(lambda factor: abs(factor - 1) > 0.05))
def test_replicas_that_are_equally_slow_or_fast_share_the_blame(factor):
    found = plant(DATA, computes(0, 1), factor=factor)
    assert found.cause.startswith("compute of all ranks (")
    by_place = {cause.place: cause.adds_s for cause in found.causes}
    each = by_place["compute of rank 0"]
    assert each == pytest.approx(by_place["compute of rank 1"])
    assert 2 * each == pytest.approx(by_place["compute of all ranks"], rel=0.3)


def test_a_slow_operation_is_named_where_no_rank_can_be():
    found = plant(DATA, lambda i: i.task.op == "B", factor=2.0)
    assert found.cause == "B on all ranks (+100%)"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2), st.booleans(), st.floats(0.005, 0.5))
def test_a_throttled_link_is_named(first, forward, seconds):
    ends = (first, first + 1) if forward else (first + 1, first)
    found = plant([*UNIT, "parallel.schedule=gpipe"], between(*ends), seconds=seconds)
    assert found.cause.startswith(f"messages {ends[0]}→{ends[1]} (+")
    assert found.causes[0].each_s == pytest.approx(seconds)


def test_all_links_of_a_rank_together_are_its_messages():
    def of_rank(instruction):
        return any(between(*ends)(instruction) for ends in [(1, 2), (2, 1), (2, 3), (3, 2)])

    found = plant([*UNIT, "parallel.schedule=gpipe"], of_rank, seconds=0.1)
    assert found.cause == "messages of rank 2 (+100 ms each)"


def test_two_ranks_cannot_be_told_apart_by_their_messages():
    plan = [*UNIT[:2], "parallel.pipeline=2", "parallel.schedule=gpipe"]
    found = plant(plan, lambda i: i.task.op in MESSAGES, seconds=0.1)
    assert found.cause == "messages (+100 ms each)"
    assert not any("messages of rank" in cause.place for cause in found.causes)


def test_a_slow_collective_is_named_with_its_ranks_where_there_are_several():
    one = plant(DATA, lambda i: i.task.op == "ALL_REDUCE", seconds=0.01)
    assert one.cause.startswith("all-reduce data of ranks 0, 1 (+10 ms each)")
    two = [*GPT, "parallel.pipeline=2", "parallel.data=2"]
    found = plant(two, lambda i: i.task.group == (1, 3), seconds=0.01)
    assert found.cause.startswith("all-reduce data of ranks 1, 3 (+10 ms each)")


@settings(max_examples=10, deadline=None)
@given(RANKS, st.floats(0.002, 0.1))
def test_host_time_is_named_with_its_rank(rank, gap):
    found = plant([*UNIT, "parallel.schedule=1f1b"], lambda i: i.rank == rank, gap=gap)
    assert found.cause.startswith(f"host time of rank {rank} between instructions (+")


def test_host_time_everywhere():
    found = plant(UNIT, lambda i: True, gap=0.01)
    assert found.cause.startswith("host time between instructions (+10 ms each)")


def test_a_busy_core_slows_the_compute_of_all():
    """Two ranks on two cores, one of which another process takes half of the time."""
    experiment = load(None, ["cluster.preset=laptop", *DATA[:2], *DATA[3:]])
    program, cluster = lower(experiment), resolve(experiment)
    timelines = [
        simulate(program, costs_of(program, experiment, replace(cluster, cores=cores)))
        for cores in (2.0, 1.5)
    ]
    found = compare_timelines(*timelines, program)
    assert found.iteration_time_error < -0.1
    assert found.cause.startswith("compute of all ranks (+")


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 0.9))
def test_the_cause_has_the_sign_of_the_difference(factor):
    """A rank that is faster than predicted does not explain a longer step."""
    found = plant([*UNIT, "parallel.schedule=naive"], computes(2), factor=factor)
    assert found.iteration_time_error > 0
    assert found.cause == f"compute of rank 2 ({factor - 1:+.0%})"


def test_what_is_hidden_is_no_cause():
    """Rank 0 waits for its first backward pass after the last forward pass of 1F1B's warm-up."""
    plan = [*UNIT, "parallel.schedule=1f1b", "parallel.microbatches=4"]
    found = plant(plan, lambda i: i.label == "0F3", factor=2.0)
    assert found.instruction_start_error > 0
    assert (found.cause, found.causes) == ("none", [])


def test_nothing_remains_where_participants_end_at_different_times():
    """On real machines each sees the end of an all-reduce when it wakes."""
    experiment = load(None, [*DATA, "parallel.tensor=2"])
    program, cluster = lower(experiment), resolve(experiment)
    predicted = simulate(program, costs_of(program, experiment, cluster))
    everywhere = {"where": lambda _: True, "factor": 1.5, "gap": 1e-5}
    costs = Planted(costs_of(program, experiment, cluster), **everywhere)
    measured = simulate(program, costs)
    early = np.random.default_rng(0).random(len(program)) * (measured.end - measured.start) / 2
    early[[i.uid for i in program if i.task.op not in COMMUNICATION]] = 0.0
    found = compare_timelines(predicted, replace(measured, end=measured.end - early), program)
    difference = measured.iteration_time - predicted.iteration_time
    assert sum(found.attribution.values()) == pytest.approx(difference)
    assert found.attribution["remainder_s"] == pytest.approx(0.0, abs=1e-9 * difference)
    assert found.attribution["compute_s"] > 0 < found.attribution["communication_s"]


def test_what_no_cause_explains_is_the_remainder():
    """The last instruction starts later than it was posted, and nobody was waited for."""
    experiment = load(None, UNIT)
    program = lower(experiment)
    timeline = simulate(program, costs_of(program, experiment, resolve(experiment)))
    late = np.where(np.arange(len(timeline)) == int(timeline.end.argmax()), 1.0, 0.0)
    measured = replace(timeline, start=timeline.start + late, end=timeline.end + late)
    found = compare_timelines(timeline, measured, program)
    assert found.attribution["remainder_s"] == pytest.approx(1.0)
    assert (found.cause, found.causes) == ("remainder", [])


def late_in_turn(seconds: float) -> tuple[Timeline, Program]:
    """Medians of three iterations: in each, another of two replicas is late to the all-reduce
    or none, so their medians are on time and the median of the last arrival is not."""
    experiment = load(None, DATA)
    program, cluster = lower(experiment), resolve(experiment)
    on_time = simulate(program, costs_of(program, experiment, cluster))
    meetings = {member.uid for members in program.meetings for member in members}
    late = np.array([float(i.uid in meetings) for i in program]) * seconds
    steps = {i.uid for i in program if i.task.op == "STEP"}
    later = late + np.array([float(i.uid in steps) for i in program]) * seconds
    moved = replace(on_time, start=on_time.start + later, end=on_time.end + later)
    moved.posted = on_time.posted + later - late
    return moved, program


@pytest.mark.parametrize(("expected", "happened"), [(0.0, 0.02), (0.02, 0.0), (0.02, 0.03)])
def test_ranks_that_are_late_in_turn_are_told_from_a_remainder(expected, happened):
    predicted, program = late_in_turn(expected)
    measured, _ = late_in_turn(happened)
    found = compare_timelines(predicted, measured, program)
    others = {name: value for name, value in found.attribution.items() if "late" not in name}
    assert others == pytest.approx(dict.fromkeys(others, 0.0), abs=1e-12)
    assert found.attribution["late_in_turn_s"] == pytest.approx(happened - expected)
    assert found.cause == f"ranks late in turn ({seconds(happened - expected, signed=True)})"
    assert found.causes == []
    assert compare_timelines(predicted, predicted, program).cause == "none"


def test_traffic_is_divided_among_places_without_rest():
    """The widest place of communication is all of it."""
    found = plant(DATA, lambda i: i.task.op in COMMUNICATION, factor=3.0)
    assert found.causes[0].kind == "communication"
    assert found.causes[0].adds_s == pytest.approx(found.attribution["communication_s"])
