"""What follows from where a stage is cut, on the plans of real models."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.strategies.lowering import apply_chain, begin
from simulator.strategies.stages.pieces import Pieces


def pieces(*keys: str) -> Pieces:
    lowered = apply_chain(begin(load(None, ["parallel.pipeline=1", *keys])))
    return lowered.stages[0][0].pieces


@pytest.mark.parametrize("keys", [[], ["parallel.tensor=2"], ["parallel.context=2"]])
def test_spans_follow_each_other(keys: list[str]) -> None:
    found = pieces(*keys)
    assert found.first == 0
    assert all(a[1] == b[0] for a, b in zip(found.spans, found.spans[1:], strict=False))
    assert all(
        found.spans[p][0] <= layer < found.spans[p][1] for layer, p in found.piece_of.items()
    )


def test_exchanges_are_pieces_of_one_layer() -> None:
    found = pieces("parallel.tensor=2")
    assert found.exchanges
    for piece in found.exchanges:
        first, last = found.spans[piece]
        assert last == first + 1
        assert found.flow.layers[first].exchange is not None
    assert not pieces().exchanges


def test_a_gradient_is_complete_behind_a_later_segment() -> None:
    found = pieces("parallel.tensor=2")
    for exchange, segment in found.completed.items():
        assert segment >= exchange
        assert segment not in found.exchanges or segment == exchange


def test_sequence_parallel_gathers_are_made_again() -> None:
    found = pieces("parallel.tensor=2", "parallel.sequence_parallel=true")
    assert found.regathered
    assert found.regathered.keys() <= found.exchanges
