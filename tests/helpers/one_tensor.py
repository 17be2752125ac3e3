"""Tasks that make a tensor, send it and free it."""

from __future__ import annotations

from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName

MAKE = Task(Op.FORWARD, 0, allocates=(Tensor(TensorName.other("a"), 8),))
SEND = Task(
    Op.SEND,
    0,
    stream=Stream.send(1),
    peer=1,
    tensor=TensorName.other("a"),
    sources=(TensorName.other("a"),),
)
FREE = Task(Op.BACKWARD, 0, frees=(TensorName.other("a"),))
