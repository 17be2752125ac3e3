"""What hosts launch in the order of their lists comes to its end, or is refused."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.experiment.section import ExperimentError
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.launch_order import check_launch_order, memory_waits
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.lowering import lower
from simulator.strategies.schedules.registry import SCHEDULES

PLANS = [
    "parallel.data=2 parallel.zero=1 run.horizon=2",
    "parallel.data=2 parallel.zero=3 parallel.bucket_mb=0.5",
    "parallel.data=2 parallel.zero=3 parallel.pipeline=2",
    "parallel.tensor=2 parallel.sequence_parallel=true parallel.pipeline=2",
    "parallel.context=2 parallel.pipeline=2",
    "parallel.context=2 parallel.context_style=ulysses",
    "parallel.expert=2 workload.model=moe-gpt workload.clip_norm=1",
    "parallel.recompute=full parallel.tensor=2 parallel.pipeline=2",
]

LATE = [
    "parallel.data=2 parallel.data_style=parameter-server parallel.servers=2 "
    "parallel.bucket_mb=0.5",
    "parallel.pipeline=4 parallel.microbatches=8 parallel.schedule=zb-h1 "
    "parallel.virtual_stages=2 workload.layers=8",
]
"""Plans in which a rank launches something behind what cannot begin before it."""


@pytest.mark.parametrize("plan", PLANS)
def test_strategies_come_to_their_end(plan):
    check_launch_order(lower(load(None, plan.split())))


@pytest.mark.parametrize("plan", LATE)
def test_some_plans_need_hosts_that_wait(plan):
    with pytest.raises(ProgramError, match="never ends where hosts launch communication"):
        check_launch_order(lower(load(None, plan.split())))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shape", [(2, 2), (4, 8), (4, 3)], ids=str)
@pytest.mark.parametrize("virtual", [1, 2])
def test_schedules_come_to_their_end(schedule, shape, virtual):
    keys = {"pipeline": shape[0], "microbatches": shape[1], "schedule": schedule}
    keys["virtual_stages"] = virtual
    plan = ["workload.layers=8", *(f"parallel.{key}={value}" for key, value in keys.items())]
    try:
        experiment = load(None, plan)
    except ExperimentError:
        pytest.skip("no such plan")
    if (schedule, shape, virtual) == ("zb-h1", (4, 8), 2):
        return  # one of LATE
    check_launch_order(lower(experiment))


def message(op, peer, name, *after):
    """An instruction that sends to, or receives from, a peer."""
    stream = Stream.send(peer) if op is Op.SEND else Stream.recv(peer)
    task = Task(op, 0, stream=stream, peer=peer, tensor=TensorName.other(name), nbytes=8)
    return Instruction(task, 0, after)


def crossing(ready_first):
    """Two ranks; on rank 0 a message to rank 1 is ready at once, one to rank 2 after a pass.

    The pass needs what rank 1 sends in the end, and rank 1 needs the message that is ready.
    """
    received = message(Op.RECV, 1, "z")
    computed = Instruction(Task(Op.FORWARD, 0), 0, [received])
    late, ready = message(Op.SEND, 2, "a", computed), message(Op.SEND, 1, "q")
    first = [ready, received, computed, late] if ready_first else [received, computed, late]
    if not ready_first:
        first.append(message(Op.SEND, 1, "q", computed))
    got = message(Op.RECV, 0, "q")
    second_pass = Instruction(Task(Op.FORWARD, 0), 0, [got])
    second = [got, second_pass, message(Op.SEND, 0, "z", second_pass)]
    return Program([first, second, [message(Op.RECV, 0, "a")]])


def test_a_message_that_is_launched_too_late_is_refused():
    check_launch_order(crossing(ready_first=True))
    with pytest.raises(ProgramError, match="never ends where hosts launch communication"):
        check_launch_order(crossing(ready_first=False))


def test_only_the_order_of_launches_is_at_fault():
    """Two receives from different peers, the later one needed for the earlier one's sender."""
    slow, quick = message(Op.RECV, 1, "a"), message(Op.RECV, 2, "b")
    held = message(Op.SEND, 2, "c")
    passed = Instruction(Task(Op.FORWARD, 0), 0, [slow])
    sent = message(Op.SEND, 3, "d", passed)
    first = [slow, quick, held, passed, sent]
    given = message(Op.RECV, 0, "c")
    middle = Instruction(Task(Op.FORWARD, 0), 0, [given])
    third = [given, middle, message(Op.SEND, 0, "b", middle), message(Op.SEND, 1, "e", middle)]
    told = message(Op.RECV, 2, "e")
    second = [told, Instruction(Task(Op.FORWARD, 0), 0, [told])]
    second.append(message(Op.SEND, 0, "a", second[-1]))
    program = Program([first, second, third, [message(Op.RECV, 0, "d")]])
    check_program(program)
    check_launch_order(program)  # a kernel need not end for the next one to begin


def test_what_is_made_anew_waits_for_who_freed_it():
    weights, other = TensorName.other("w"), TensorName.other("v")
    make = Task(Op.FORWARD, 0, allocates=(Tensor(weights, 8), Tensor(other, 8)))
    free = Task(Op.BACKWARD, 0, frees=(weights,))
    again = Task(Op.FORWARD, 0, allocates=(Tensor(weights, 8),))
    tasks = [make, free, again, free, again]
    assert memory_waits([Instruction(task, 0) for task in tasks]) == {2: [1], 4: [3]}
    assert memory_waits([Instruction(t, n) for n, t in enumerate([make, free, again])]) == {}
