"""The operations of the program language."""

from __future__ import annotations

from enum import StrEnum

COMPUTE_STREAM = "compute"


class Op(StrEnum):
    """An operation, named as in `torch.distributed.pipelining` where that has a name for it."""

    FORWARD = "F"
    RECOMPUTE = "R"
    BACKWARD = "B"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"
    SEND = "SEND"
    RECV = "RECV"
    ALL_REDUCE = "ALL_REDUCE"
    ALL_GATHER = "ALL_GATHER"
    REDUCE_SCATTER = "REDUCE_SCATTER"
    ALL_TO_ALL = "ALL_TO_ALL"
    SHIFT = "SHIFT"
    SHIFT_BACK = "SHIFT_BACK"
    GRADIENT_NORM = "NORM"
    OPTIMIZER_STEP = "STEP"


FORWARDS = frozenset({Op.FORWARD, Op.RECOMPUTE})
INPUT_BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_INPUT})
"""Operations after which the gradients of a segment's inputs are known."""
LAST_BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_WEIGHT})
"""Operations after which the gradients of a segment's parameters are known."""
BACKWARDS = INPUT_BACKWARDS | LAST_BACKWARDS
PASSES = BACKWARDS | {Op.FORWARD}
"""Operations that a schedule puts in order."""

SHIFTS = frozenset({Op.SHIFT, Op.SHIFT_BACK})
"""Operations in which every rank of a group sends to the next one (`SHIFT_BACK`: to the one
before) and receives from the other neighbour."""
COLLECTIVES = frozenset({Op.ALL_REDUCE, Op.ALL_GATHER, Op.REDUCE_SCATTER, Op.ALL_TO_ALL}) | SHIFTS
MESSAGES = frozenset({Op.SEND, Op.RECV})
COMMUNICATION = COLLECTIVES | MESSAGES
