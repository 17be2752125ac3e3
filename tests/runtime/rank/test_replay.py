"""A replay refuses what it cannot execute, and records of other programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.rank.replay import Replay, replay
from simulator.engine.engine import simulate
from simulator.strategies.lowering import lower
from table_costs import TableCosts

KEYS: dict[str, Any] = {"data_style": "asynchronous", "data": 2, "layers": 2}


def test_a_simulated_record_can_be_executed(experiment: Callable[..., Any]) -> None:
    tiny = experiment(**KEYS, horizon=2)
    program = lower(tiny)
    record = simulate(program, TableCosts([1.0, 0.5, 2.0])).decisions
    contexts = replay(tiny, program, [record, record])
    assert [context.rank.number for context in contexts] == [0, 1, 2]
    assert not any(context.tensors for context in contexts)  # all is given back


def test_what_does_not_begin_leaves_out_what_waits_for_it(experiment: Callable[..., Any]) -> None:
    tiny = experiment(**KEYS, horizon=4)
    program = lower(tiny)
    timeline = simulate(program, TableCosts([1.0, 0.5, 2.0]))
    half = timeline.iteration_time / 2
    whole = Replay(tiny, program).iterate(timeline.decisions)
    ended = 0

    def count() -> None:
        nonlocal ended
        ended += 1

    part = Replay(tiny, program).iterate(
        timeline.decisions, lambda uid: bool(timeline.start[uid] <= half), count
    )
    begun = timeline.start <= half
    begun[timeline.idle] = False  # steps with nothing to do are not executed
    assert ended == int(begun.sum())
    expected = {uid: float(loss) for uid, loss in whole if timeline.start[uid] <= half}
    assert 0 < len(part) < len(whole)
    assert {uid: float(loss) for uid, loss in part} == expected


def test_a_record_of_another_program_is_refused(experiment: Callable[..., Any]) -> None:
    tiny = experiment(**KEYS)
    program = lower(tiny)
    record = simulate(program, TableCosts([1.0])).decisions
    with pytest.raises(ValueError, match="never starts: the record is of another program"):
        replay(tiny, program, [record[:-1]])
