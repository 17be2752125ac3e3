"""A queue lists who asks and who accepts, and an acceptance keeps count of them."""

from __future__ import annotations

from parameter_server import server_program
from simulator.program.accept_queue import Acceptance, Decision
from simulator.program.arrival import FirstCome, FirstN, Outcome, RandomOrder
from simulator.program.program import Program


def test_a_queue_has_the_instructions_of_all_ranks() -> None:
    program = server_program(FirstN(2), [1, 2])
    (queue,) = program.queues
    assert (queue.name, queue.policy, queue.server) == ("server", FirstN(2), 0)
    labels = [i.label for i in program]
    assert [labels[uid] for uid in queue.accepts] == [f"0ACCEPT{n}" for n in range(6)]
    assert [labels[uid] for uid in queue.steps] == [f"0STEP{n}" for n in range(6)]
    assert {rank: [labels[uid] for uid in uids] for rank, uids in queue.requests.items()} == {
        1: ["0PULL0", "0PUSH0"],
        2: ["0PULL0", "0PUSH0", "0PULL1", "0PUSH1"],
    }
    assert {labels[uid] for uid in queue.pushes} == {"0PUSH0", "0PUSH1"}
    assert queue.pushes_of == {1: 1, 2: 2}
    assert all(queue.by_uid[uid].rank == 1 for uid in queue.requests[1])


def test_queues_come_by_name() -> None:
    first, second = (server_program(FirstCome(), [1]).ranks for _ in range(2))
    for instruction in (i for instructions in first for i in instructions):
        if instruction.task.queue:
            object.__setattr__(instruction.task, "queue", "a")
    for instruction in second[1]:
        if instruction.task.peer == 0:
            object.__setattr__(instruction.task, "peer", 2)
    program = Program([*first, *second])
    assert [(queue.name, queue.server) for queue in program.queues] == [("a", 0), ("server", 2)]


def test_an_acceptance_counts_pushes_pulls_and_updates() -> None:
    (queue,) = server_program(FirstCome(), [1, 2]).queues
    acceptance = Acceptance(queue)
    requests = list(queue.by_uid.values())  # of worker 1: pull, push; of 2: pull, push, …
    outcomes = [acceptance.accept(requests[number]) for number in (0, 2, 3, 1, 4)]
    assert outcomes == [
        Outcome(False, 0, 0),
        Outcome(False, 0, 0),
        Outcome(True, 1, 0),
        Outcome(True, 1, 1),
        Outcome(False, 0, 0),
    ]
    served = acceptance.served
    assert (served.pushes, served.left) == ({1: 1, 2: 1}, {1: 0, 2: 1})
    assert (served.updates, served.version, served.pending) == (2, {1: 0, 2: 2}, [])
    assert acceptance.decisions[:2] == [
        Decision(queue.accepts[0], requests[0].uid),
        Decision(queue.accepts[1], requests[2].uid),
    ]


def test_another_policy_may_take_the_place_of_the_one_of_the_program() -> None:
    (queue,) = server_program(FirstCome(), [1, 1, 1]).queues
    pulls = [requests for requests in queue.by_uid.values() if not requests.is_push]
    assert Acceptance(queue).choose(pulls) == pulls[0]
    chosen = {Acceptance(queue, RandomOrder(seed)).choose(pulls) for seed in range(9)}
    assert chosen == set(pulls)
