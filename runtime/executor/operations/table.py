"""The table of operations: one function for each word of the program language."""

from __future__ import annotations

from collections.abc import Callable

from runtime.executor.context import RankContext
from runtime.executor.groups import Wait
from runtime.executor.operations.arrivals import accept, wait_for_turn
from runtime.executor.operations.coding import decode, encode
from runtime.executor.operations.collectives import collective
from runtime.executor.operations.compute import backward, backward_input, backward_weight, forward
from runtime.executor.operations.messages import receive, send
from runtime.executor.operations.mixing import mix, outer_step, snapshot
from runtime.executor.operations.optimizer import gradient_norm, optimizer_step
from simulator.program.accept_queue import is_local
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, Op

Operation = Callable[[RankContext, Instruction], Wait | None]


def in_turn(operation: Operation) -> Operation:
    """Return an operation that waits to be carried out where it is a local request."""

    def operate(context: RankContext, instruction: Instruction) -> Wait | None:
        if is_local(instruction.task):
            wait_for_turn(context, instruction)
            return None
        return operation(context, instruction)

    return operate


OPERATIONS: dict[Op, Callable[[RankContext, Instruction], Wait | None]] = {
    Op.FORWARD: forward,
    Op.RECOMPUTE: forward,
    Op.BACKWARD: backward,
    Op.BACKWARD_INPUT: backward_input,
    Op.BACKWARD_WEIGHT: backward_weight,
    Op.SEND: send,
    Op.RECV: receive,
    Op.ACCEPT: accept,
    **dict.fromkeys(COLLECTIVES, collective),
    Op.GRADIENT_NORM: gradient_norm,
    Op.OPTIMIZER_STEP: in_turn(optimizer_step),
    Op.MIX: mix,
    Op.SNAPSHOT: in_turn(snapshot),
    Op.OUTER_STEP: outer_step,
    Op.ENCODE: encode,
    Op.DECODE: decode,
}
"""A function executes its operation, or begins it and returns what waits for the end."""
