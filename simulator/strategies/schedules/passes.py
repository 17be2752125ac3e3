"""The vocabulary of a schedule."""

from __future__ import annotations

from typing import NamedTuple

from simulator.program import Op


class Pass(NamedTuple):
    """One forward or backward pass of a (virtual) stage for one microbatch."""

    op: Op
    stage: int
    microbatch: int


def forward(stage: int, microbatch: int) -> Pass:
    return Pass(Op.FORWARD, stage, microbatch)


def backward(stage: int, microbatch: int) -> Pass:
    return Pass(Op.BACKWARD, stage, microbatch)
