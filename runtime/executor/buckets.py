"""What operations do with the flat buffers of a bucket, whole or sharded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.program.tensors import tensor_key

if TYPE_CHECKING:
    from runtime.executor.executor import Executor
    from runtime.executor.ledger import Ledger
    from runtime.executor.parameters import Parameters


@contextmanager
def collecting(
    parameters: Parameters | None,
    task: Task,
    microbatch: int,
    ledger: Ledger,
    begin: float,
) -> Iterator[None]:
    """Parameter gradients go where those of this microbatch are, or begin there: in `ledger`
    at the moment `begin`.
    """
    if parameters is None:
        yield
        return
    for tensor in task.allocates:
        if tensor.name == parameters.bucket.name:
            nbytes = parameters.begin_gradients(microbatch).nbytes
            ledger.hold((tensor.name, microbatch), nbytes, begin)
    with parameters.collecting(microbatch):
        yield


def bucket_collective(executor: Executor, instruction: Instruction, parameters: Parameters) -> None:
    """On flat buffers, in place: this rank's part of a whole one is what it gives or gets."""
    task, microbatch, begin = instruction.task, instruction.microbatch, time.perf_counter()
    if task.op is Op.ALL_REDUCE:
        executor.groups.collective(task, parameters.reduced, parameters.reduced)
    elif task.op is Op.REDUCE_SCATTER:
        whole = parameters.whole_gradients(microbatch)
        executor.groups.collective(task, parameters.part_of(whole), whole)
        parameters.keep_reduced(microbatch)
    else:
        with parameters.gathering() as whole:
            for tensor in task.allocates:
                executor.ledger.hold(tensor_key(tensor.name, microbatch), whole.nbytes, begin)
            executor.groups.collective(task, whole, parameters.part_of(whole))
