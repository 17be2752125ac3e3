"""Programs that could hang because of who arrives first are refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from parameter_server import server_list, server_program, worker_list
from simulator.program.arrival import BoundedStaleness, FirstCome, FirstN, SoftSync
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName

Lists = list[list[Instruction]]


def lists(policy=FirstCome(), steps: Sequence[int] = (2, 2)) -> Lists:  # noqa: B008
    workers = range(1, len(steps) + 1)
    return [server_list(policy, workers, 2 * sum(steps)), *(worker_list(0, n) for n in steps)]


def changed(instructions: list[Instruction], op: Op, number: int = 0, **fields: Any) -> None:
    """Give the instruction of this operation and number another task."""
    found = [i for i in instructions if i.task.op is op][number]
    found.task = replace(found.task, **fields)


def renamed(instructions: list[Instruction], op: Op, other: Op) -> None:
    """Give the first instruction of an operation another one, in the queue."""
    found = next(i for i in instructions if i.task.op is op)
    found.task = replace(found.task, op=other, queue="server")


def barrier(ranks: Lists, before: int) -> None:
    """Let both workers meet before their instruction of this index."""
    task = Task(
        Op.ALL_REDUCE, 0, stream=Stream.along("data"), group=(1, 2), tensor=TensorName.other("x")
    )
    for mine in ranks[1:]:
        meeting = Instruction(
            task, -1, [i for i in mine[:before] if i.task.stream == COMPUTE_STREAM]
        )
        mine[before].after = (*mine[before].after, meeting)
        mine.insert(before, meeting)


def server_receives(ranks: Lists) -> None:
    """Let the server receive something of worker 1 in the middle."""
    message = Task(Op.SEND, 0, stream=Stream.send(0), peer=0, tensor=TensorName.other("x"))
    ranks[1].append(Instruction(message, 0, [ranks[1][-2]]))
    task = replace(message, op=Op.RECV, stream=Stream.recv(1), peer=1)
    received = Instruction(task, 0, [ranks[0][3]])
    ranks[0][4].after = (*ranks[0][4].after, received)
    ranks[0].insert(4, received)


def second_server(ranks: Lists) -> None:
    ranks.append(server_list(FirstCome(), (1, 2), 1))


def without(op: Op, rank: int) -> Callable[[Lists], None]:
    def change(ranks: Lists) -> None:
        ranks[rank] = [i for i in ranks[rank] if i.task.op is not op]
        for instruction in ranks[rank]:
            instruction.after = tuple(o for o in instruction.after if o.task.op is not op)

    return change


def one_less(op: Op) -> Callable[[Lists], None]:
    def change(ranks: Lists) -> None:
        gone = [i for i in ranks[0] if i.task.op is op][-1]
        ranks[0].remove(gone)
        for instruction in ranks[0]:
            instruction.after = tuple(o for o in instruction.after if o is not gone)

    return change


def stray_wait(ranks: Lists) -> None:
    pull = ranks[1][3]
    pull.after = ()
    ranks[1].insert(1, pull)
    del ranks[1][4]
    pull.task = replace(pull.task, stream=Stream.along("other"))


def late_step(ranks: Lists) -> None:
    ranks[0][1], ranks[0][2] = ranks[0][2], ranks[0][1]
    ranks[0][1].after = ranks[0][1].after[:0]


REFUSED: dict[str, tuple[Callable[[Lists], None], str]] = {
    "nobody accepts": (
        without(Op.ACCEPT, 0),
        "rank 0: STEP waits in queue 'server', from which nobody accepts",
    ),
    "two servers": (
        second_server,
        "rank 3: ACCEPT of queue 'server': rank 0 accepts from it, too; allowed: one rank",
    ),
    "no policy": (
        lambda ranks: changed(ranks[0], Op.ACCEPT, 1, policy=None),
        "rank 0: ACCEPT of queue 'server': an ACCEPT, and nothing else, names queue and policy",
    ),
    "no queue": (
        lambda ranks: changed(ranks[0], Op.ACCEPT, 1, queue=""),
        "rank 0: ACCEPT of queue '': an ACCEPT, and nothing else, names queue and policy",
    ),
    "a pass with a queue": (
        lambda ranks: changed(ranks[1], Op.FORWARD, 1, queue="server"),
        "rank 1: 0F1: FirstCome() hands out no microbatches",
    ),
    "a mixing with a queue": (
        lambda ranks: renamed(ranks[1], Op.FORWARD, Op.MIX),
        "rank 1: MIX of queue 'server': only messages, passes, ACCEPT and STEP may name a queue",
    ),
    "another policy": (
        lambda ranks: changed(ranks[0], Op.ACCEPT, 1, policy=FirstN(1)),
        "rank 0: 0ACCEPT1 has not the policy, group and stream of rank 0: 0ACCEPT0",
    ),
    "another server": (
        lambda ranks: changed(ranks[1], Op.SEND, 0, peer=2),
        "rank 1: 0PUSH0 is for rank 2; rank 0 accepts from queue 'server'",
    ),
    "not of the group": (
        lambda ranks: [changed(ranks[0], Op.ACCEPT, n, group=(1,)) for n in range(8)],
        "rank 2: 0PULL0 is not of those that may be served, (1,)",
    ),
    "one ACCEPT less": (
        lambda ranks: ranks[0].__delitem__(slice(-2, None)),
        "rank 0: 0ACCEPT0: rank 0 accepts 7 requests from queue 'server'; ranks [1, 2] make 8",
    ),
    "one step less": (
        one_less(Op.OPTIMIZER_STEP),
        "rank 0: 0STEP0: 7 steps depend on 8 ACCEPTs; allowed: one each",
    ),
    "a step behind the next ACCEPT": (
        late_step,
        "rank 0: 0STEP0 does not come between 0ACCEPT0, for which it waits, and the next",
    ),
    "requests beside each other": (
        stray_wait,
        "rank 1: 0PULL1 does not wait for 0PULL0, before it in queue 'server'",
    ),
    "a server that needs others": (
        server_receives,
        "rank 0: 0ACCEPT7 waits for 0RECV0; allowed, so that it can always go on: compute and "
        "what is in queue 'server', on streams of their own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_may_hang_is_refused(name: str) -> None:
    ranks = lists()
    change, message = REFUSED[name]
    change(ranks)
    with pytest.raises(ProgramError) as error:
        check_program(Program(ranks))
    assert str(error.value) == message


def test_requests_that_are_accepted_whatever_the_order_are_allowed() -> None:
    for policy in (FirstCome(), BoundedStaleness(1), SoftSync(2), FirstN(2), FirstN(1)):
        check_program(server_program(policy, [3, 3]))
    for policy in (FirstCome(), SoftSync(2), FirstN(2)):
        check_program(server_program(policy, [4, 1, 2]))


def test_a_bound_that_never_lets_a_worker_on_is_a_deadlock() -> None:
    check_program(server_program(BoundedStaleness(1), [4, 2]))
    with pytest.raises(ProgramError) as error:
        check_program(server_program(BoundedStaleness(0), [4, 2]))
    assert str(error.value) == (
        "deadlock: rank 0 waits in 0ACCEPT10; rank 1 waits in 0PULL3; BoundedStaleness(bound=0)"
    )


def test_workers_that_wait_for_each_other_may_not_wait_for_the_first_n() -> None:
    ranks = lists()
    barrier(ranks, 3)
    check_program(Program(ranks))
    ranks = lists(FirstN(2))
    barrier(ranks, 3)
    with pytest.raises(ProgramError, match=r"0PUSH1 waits for 0ALL_REDUCE; allowed, as FirstN"):
        check_program(Program(ranks))


def test_a_bound_and_workers_that_wait_for_each_other_can_be_a_deadlock() -> None:
    """Worker 2 waits for 1 before its first pull, without which 1 cannot go on."""
    ranks = lists(BoundedStaleness(0))
    task = Task(Op.SEND, 0, stream=Stream.send(2), peer=2, tensor=TensorName.other("x"))
    sent = Instruction(task, 0, [ranks[1][4]])
    ranks[1].insert(5, sent)
    received = Instruction(replace(task, op=Op.RECV, stream=Stream.recv(1), peer=1), 0)
    ranks[2].insert(0, received)
    ranks[2][1].after = (received,)
    with pytest.raises(ProgramError, match=r"deadlock: rank 0 waits in .*rank 1 waits in 0PUSH0"):
        check_program(Program(ranks))


def test_a_policy_that_cannot_be_is_refused_with_its_first_instruction() -> None:
    with pytest.raises(ProgramError) as error:
        check_program(server_program(FirstN(3), [2, 2]))
    assert str(error.value) == (
        "rank 0: 0ACCEPT0: an update takes pushes of 3 workers; allowed: 1 to 2"
    )


def test_folded_programs_have_no_queues() -> None:
    ranks = lists(steps=[2])
    with pytest.raises(ProgramError, match="needs a program with a list for every rank"):
        check_program(Program(ranks, list_of=[0, 1, 1]))
