"""Programs of one server that accepts what workers push and pull, as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.program.arrival import Policy
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName

QUEUE = "server"


def server_list(policy: Policy, workers: Sequence[int], count: int) -> list[Instruction]:
    """Return a server's list: `count` times an ACCEPT and a step that may have something to do."""
    accept = Task(
        *(Op.ACCEPT, 0),
        stream=Stream.along("accept"),
        group=tuple(workers),
        queue=QUEUE,
        policy=policy,
        tensor=TensorName.other("p"),
    )
    step = Task(Op.OPTIMIZER_STEP, 0, queue=QUEUE)
    instructions: list[Instruction] = []
    for number in range(count):
        accepted = Instruction(accept, number, instructions[-1:])
        instructions += [accepted, Instruction(step, number, [accepted])]
    return instructions


def worker_list(server: int, steps: int, nbytes: int = 8) -> list[Instruction]:
    """Return a worker's list: each step pulls, computes and pushes."""
    message = Task(Op.SEND, 0, stream=Stream.queue(server), peer=server, nbytes=nbytes, queue=QUEUE)
    pull = replace(message, op=Op.RECV, mnemonic="PULL", tensor=TensorName.other("p"))
    push = replace(message, mnemonic="PUSH", tensor=TensorName.other("g"))
    instructions: list[Instruction] = []
    for number in range(steps):
        pulled = Instruction(pull, number, instructions[-2:-1])  # behind the pass before
        computed = Instruction(Task(Op.FORWARD, 0), number, [pulled])
        instructions += [pulled, computed, Instruction(push, number, [computed])]
    return instructions


def server_program(policy: Policy, steps: Sequence[int]) -> Program:
    """Return the program of a server, rank 0, and of workers that make so many steps each."""
    workers = range(1, len(steps) + 1)
    lists = [server_list(policy, workers, 2 * sum(steps))]
    return Program([*lists, *(worker_list(0, count) for count in steps)])
