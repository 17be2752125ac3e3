"""The bytes that are counted as held are those of the tensors that are held."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.ledger import Freed, Ledger, SavedBytes, refetched
from simulator.program.tensors import activation, stashed
from simulator.timeline.timeline import MemoryParts


def test_a_step_that_leaves_something_behind_is_noticed():
    ledger = Ledger(MemoryParts(parameters=100))
    ledger.hold((activation(1), (0, 0)), 8, 3)
    with pytest.raises(RuntimeError, match="act:1"):
        ledger.restart()
    ledger.release((activation(1), (0, 0)), 5)
    assert ledger.changes == [(3, False, 8, activation(1)), (5, True, -8, activation(1))]
    ledger.restart()
    assert ledger.changes == []


def test_what_is_released_is_given_back_by_whoever_holds_it():
    ledger, dropped = Ledger(MemoryParts()), []
    ledger.hold((stashed(0, 1), (-1, -1)), 8, 0, lambda: dropped.append("stash"))
    ledger.hold((activation(1), (0, 0)), 8, 0)
    assert ledger.release((activation(1), (0, 0)), 1) is None
    freed = Freed(drops=[ledger.release((stashed(0, 1), (-1, -1)), 1)])
    assert dropped == []
    freed.drop()
    freed.drop()
    assert dropped == ["stash"]  # once
    with pytest.raises(KeyError):
        ledger.release((activation(1), (0, 0)), 2)


def test_each_storage_that_autograd_saves_counts_once():
    x = torch.ones(4, 4, requires_grad=True)
    with SavedBytes(()) as saved:
        (x * x).sum()  # twice the same tensor
    assert saved.nbytes == x.nbytes
    with SavedBytes([x]) as saved:
        (x * x).sum()
    assert saved.nbytes == 0


def test_a_tensor_that_is_fetched_again_is_not_kept():
    x, weight = torch.full((3,), 2.0), torch.ones(3, requires_grad=True)
    with refetched({7: x}, lambda number: torch.full((3,), float(number))):
        product = (x * weight).sum()
    product.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [7.0] * 3  # of what was fetched, not of what was there
