"""A replay refuses what it cannot execute, and records of other programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.rank.replay import replay
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


def test_collectives_are_refused(experiment: Callable[..., Any]) -> None:
    tiny = experiment(data=2, layers=2)
    with pytest.raises(ValueError, match=r"rank 0: 0REDUCE_GRAD.* a replay has messages only"):
        replay(tiny, lower(tiny), [[]])


def test_a_record_of_another_program_is_refused(experiment: Callable[..., Any]) -> None:
    tiny = experiment(**KEYS)
    program = lower(tiny)
    record = simulate(program, TableCosts([1.0])).decisions
    with pytest.raises(ValueError, match="never starts: the record is of another program"):
        replay(tiny, program, [record[:-1]])
