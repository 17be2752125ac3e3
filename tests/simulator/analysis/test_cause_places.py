"""Places where time can be lost, from a link to all communication."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.analysis.cause_places import PLACES, grouped
from simulator.program.operations import COMMUNICATION


@pytest.mark.parametrize("kind", PLACES)
def test_the_last_level_of_a_kind_is_everything(kind: str) -> None:
    program = lower(load(None, ["parallel.data=2", "parallel.pipeline=2"]))
    widest = grouped(program, PLACES[kind][-1])
    assert len(widest) == 1
    narrowest = grouped(program, PLACES[kind][0])
    (everything,) = widest.values()
    assert set().union(*map(set, narrowest.values())) <= set(everything)


def test_the_links_of_a_pipeline() -> None:
    program = lower(load(None, ["parallel.pipeline=3"]))
    links = grouped(program, PLACES["communication"][0])
    assert sorted(links) == ["messages 0→1", "messages 1→0", "messages 1→2", "messages 2→1"]
    assert sum(map(len, links.values())) == sum(i.task.op in COMMUNICATION for i in program)


def test_one_place_under_two_names_is_none() -> None:
    """With two ranks the messages of rank 0 are those of rank 1."""
    program = lower(load(None, ["parallel.pipeline=2"]))
    assert grouped(program, PLACES["communication"][1]) == {}
