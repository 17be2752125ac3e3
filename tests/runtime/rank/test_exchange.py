"""Collectives in one process give what their definitions say; gloo's own are in the numerics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runtime.executor.operations.table import OPERATIONS
from runtime.rank.exchange import EXCHANGES, Exchange
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.task import Task

GIVEN = [torch.arange(6.0) + 10 * member for member in range(3)]
SUM = torch.stack(GIVEN).sum(0)


def exchanged(op: Op, size: int, given: list[Tensor], **keys: object) -> list[Tensor]:
    """What three members get, or find in place."""
    task = Task(op=op, stage=0, group=(4, 5, 6), **keys)  # type: ignore[arg-type]
    together, gave = Exchange(()), [tensor.clone() for tensor in given]
    results = [torch.full((size,), -1.0) for _ in given]
    waits = [together.collective(task, *pair) for pair in zip(results, gave, strict=True)]
    for wait in waits:
        wait()
    return results if size else gave


def test_every_collective_is_there() -> None:
    assert EXCHANGES.keys() == set(COLLECTIVES) <= OPERATIONS.keys()


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", SUM), ("mean", SUM / 3), ("max", GIVEN[2])]
)
def test_reductions(reduction: str, expected: Tensor) -> None:
    for found in exchanged(Op.ALL_REDUCE, 0, GIVEN, reduction=reduction):
        assert torch.equal(found, expected)
    root = exchanged(Op.REDUCE, 0, GIVEN, reduction=reduction, root=5)
    assert torch.equal(root[1], expected)
    scattered = exchanged(Op.REDUCE_SCATTER, 2, GIVEN, reduction=reduction)
    assert torch.equal(torch.cat(scattered), expected)


def test_what_only_moves() -> None:
    for found in exchanged(Op.BROADCAST, 0, GIVEN, root=6):
        assert torch.equal(found, GIVEN[2])
    for found in exchanged(Op.ALL_GATHER, 18, GIVEN):
        assert torch.equal(found, torch.cat(GIVEN))
    swapped = torch.stack(exchanged(Op.ALL_TO_ALL, 6, GIVEN)).view(3, 3, 2)
    assert torch.equal(swapped, torch.stack(GIVEN).view(3, 3, 2).transpose(0, 1))
    forth, back = exchanged(Op.SHIFT, 6, GIVEN), exchanged(Op.SHIFT_BACK, 6, GIVEN)
    assert all(torch.equal(forth[i], GIVEN[i - 1]) for i in range(3))
    assert all(torch.equal(back[i - 1], GIVEN[i]) for i in range(3))


def test_a_gather_may_go_into_the_memory_that_its_parts_lie_in() -> None:
    whole = [torch.zeros(6) for _ in range(3)]
    task, together = Task(op=Op.ALL_GATHER, stage=0, group=(0, 1, 2)), Exchange(())
    for member, tensor in enumerate(whole):
        part = tensor[2 * member : 2 * member + 2]
        part.fill_(member)
        together.collective(task, tensor, part)
    assert all(tensor.tolist() == [0, 0, 1, 1, 2, 2] for tensor in whole)
