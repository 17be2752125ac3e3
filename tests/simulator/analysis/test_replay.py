"""A program replayed with its own times takes as long as it took; with others, as these say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator import load, lower
from simulator.analysis.replay import KINDS, Replay
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.timeline.timeline import Timeline

SETTINGS = ["workload.model=unit", "workload.p2p=0.25", "parallel.pipeline=2"]


@pytest.fixture
def timeline() -> Timeline:
    experiment = load(None, SETTINGS)
    program = lower(experiment)
    return simulate(program, costs_of(program, experiment, resolve(experiment)))


def replay_of(predicted: Timeline, measured: Timeline) -> Replay:
    return Replay(lower(load(None, SETTINGS)), predicted, measured, np.arange(len(predicted)))


def test_with_its_own_times_nothing_changes(timeline: Timeline) -> None:
    replay = replay_of(timeline, timeline)
    for kinds in ((), KINDS[:1], KINDS):
        assert replay.with_measured(kinds) == pytest.approx(timeline.iteration_time)


def test_all_measured_times_give_the_measured_iteration(timeline: Timeline) -> None:
    slower = replace(
        timeline, posted=timeline.posted * 2, start=timeline.start * 2, end=timeline.end * 2
    )
    replay = replay_of(timeline, slower)
    assert replay.with_measured() == pytest.approx(timeline.iteration_time)
    whole = replay.with_measured(KINDS, lateness=True)
    assert whole == pytest.approx(2 * timeline.iteration_time)


def test_one_kind_of_some_instructions(timeline: Timeline) -> None:
    """The first pass of rank 0 takes 5 s more; every pass of the step waits for it."""
    replay = replay_of(timeline, timeline)
    durations, _ = replay.times("compute")
    first = np.zeros(len(timeline), dtype=bool)
    first[0] = True
    measured = replace(timeline, end=timeline.end + np.where(first, 5.0, 0.0))
    replay = replay_of(timeline, measured)
    assert replay.times("compute")[1][0] == durations[0] + 5.0
    longer = replay.with_measured(only=("compute", first))
    assert longer == pytest.approx(timeline.iteration_time + 5.0)
    assert replay.with_measured(only=("compute", ~first)) == pytest.approx(timeline.iteration_time)
