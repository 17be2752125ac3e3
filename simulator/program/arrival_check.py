"""Programs that could hang because of who arrives first are refused.

In a program that passes, a server gets to its next ACCEPT with the help of nobody but those it
serves, so whoever may be served is served in the end, whatever the order. What can then still hang,
hangs in every order, and `simulator.program.deadlock` finds it.
"""

from __future__ import annotations

from itertools import pairwise

from simulator.program.accept_queue import LOCAL, AcceptQueue, is_dependent
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import MESSAGES, RUNS_OF_PASSES, Op
from simulator.program.program import Program
from simulator.program.vector_clocks import Order, clocks

QUEUED = MESSAGES | RUNS_OF_PASSES | LOCAL | {Op.ACCEPT}
"""Operations that may name a queue."""


def check_arrivals(program: Program) -> None:
    """Check that every request can be served, in whatever order requests come.

    Raises:
        ProgramError: the message names ranks and instructions.
    """
    _check_fields(program)
    if not program.queues:
        return
    listed = list(program)
    orders = {
        rank: Order(instructions)
        for rank, instructions in zip(program.members, program.ranks, strict=True)
    }
    for queue in program.queues:
        accepts = [listed[uid] for uid in queue.accepts]
        requests = {rank: [listed[uid] for uid in uids] for rank, uids in queue.requests.items()}
        _check_server(program, queue, accepts)
        _check_requests(queue, accepts, requests, orders)
        _check_passes(queue, listed, orders)
        _check_steps([listed[uid] for uid in queue.steps], accepts, orders[queue.server])
        if not queue.policy.is_lasting:
            for rank, theirs in requests.items():
                _check_independence(program, rank, theirs, f"as {queue.policy} asks")
        refusal = queue.policy.refusal(queue.pushes_of)
        if refusal is not None:
            raise ProgramError(f"{accepts[0]!r}: {refusal}")


def _check_fields(program: Program) -> None:
    """Check that queues and policies are named where they mean something, by one server each."""
    servers: dict[str, int] = {}
    named: dict[str, tuple[int, int]] = {}
    for position, columns in enumerate(program.columns):
        rank = program.members[position]
        for number, task in enumerate(columns.tasks):
            if not (task.queue or task.policy or task.op is Op.ACCEPT):
                continue
            where = f"rank {rank}: {task.name} of queue {task.queue!r}"
            if program.is_folded:
                raise ProgramError(f"{where} needs a program with a list for every rank")
            if task.op not in QUEUED:
                raise ProgramError(
                    f"{where}: only messages, passes, ACCEPT and STEP may name a queue"
                )
            if (task.op is Op.ACCEPT) != (task.policy is not None) or not task.queue:
                raise ProgramError(f"{where}: an ACCEPT, and nothing else, names queue and policy")
            if task.op in LOCAL and not is_dependent(task) and task.peer != rank:
                raise ProgramError(f"{where}: is for rank {task.peer}; allowed: rank {rank}")
            if task.op is Op.ACCEPT and servers.setdefault(task.queue, rank) != rank:
                raise ProgramError(
                    f"{where}: rank {servers[task.queue]} accepts from it, too; allowed: one rank"
                )
            named.setdefault(task.queue, (position, number))
    for queue, (position, number) in named.items():
        if queue not in servers:
            task = program.columns[position].tasks[number]
            raise ProgramError(
                f"rank {program.members[position]}: {task.name} waits in queue {queue!r}, "
                f"from which nobody accepts"
            )


def _check_server(program: Program, queue: AcceptQueue, accepts: list[Instruction]) -> None:
    """Check that all ACCEPTs of a queue are alike, and wait for nobody else."""
    first = accepts[0].task
    for other in accepts:
        task = other.task
        if (task.policy, task.group, task.stream) != (first.policy, first.group, first.stream):
            raise ProgramError(f"{other!r} has not the policy, group and stream of {accepts[0]!r}")
    _check_independence(program, queue.server, accepts, "so that it can always go on")


def _check_independence(
    program: Program, rank: int, instructions: list[Instruction], reason: str
) -> None:
    """Check that instructions wait for no communication but each other."""
    listed = program.ranks[program.members.index(rank)]
    mine = set(instructions)
    streams = {instruction.task.stream for instruction in mine}
    last = instructions[-1]
    before = dict(clocks(listed)[last.index])
    others = [other for other in listed if other.task.stream in streams and other not in mine]
    others += [listed[index] for stream, index in before.items() if stream not in streams]
    if others:
        raise ProgramError(
            f"{last!r} waits for {others[0].label}; allowed, {reason}: compute and what is in "
            f"queue {last.task.queue!r}, on streams of their own"
        )


def _check_requests(
    queue: AcceptQueue,
    accepts: list[Instruction],
    requests: dict[int, list[Instruction]],
    orders: dict[int, Order],
) -> None:
    """Check that requests are for this server, come one after the other, and are all accepted."""
    for rank, theirs in requests.items():
        for request in theirs:
            if request.task.peer != queue.server:
                raise ProgramError(
                    f"{request!r} is for rank {request.task.peer}; rank {queue.server} accepts "
                    f"from queue {queue.name!r}"
                )
            if rank not in accepts[0].task.group:
                group = accepts[0].task.group
                raise ProgramError(f"{request!r} is not of those that may be served, {group}")
        for before, request in pairwise(theirs):
            if not orders[rank].holds(before, request):
                raise ProgramError(
                    f"{request!r} does not wait for {before.label}, before it in queue "
                    f"{queue.name!r}"
                )
    counts = {rank: len(theirs) for rank, theirs in requests.items()}
    if queue.policy.num_served(counts) != len(accepts):
        raise ProgramError(
            f"{accepts[0]!r}: rank {queue.server} accepts {len(accepts)} requests from queue "
            f"{queue.name!r}; ranks {sorted(requests)} make {sum(counts.values())}"
        )


def _check_passes(queue: AcceptQueue, listed: list[Instruction], orders: dict[int, Order]) -> None:
    """Check that every pass for which work is asked waits for the answer."""
    for uid, asked in queue.passes.items():
        one = listed[uid]
        if not queue.policy.hands_out:
            raise ProgramError(f"{one!r}: {queue.policy} hands out no microbatches")
        if asked < 0 or not orders[one.rank].holds(listed[asked], one):
            raise ProgramError(
                f"{one!r} does not wait for a request for its microbatch in queue {queue.name!r}"
            )


def _check_steps(steps: list[Instruction], accepts: list[Instruction], order: Order) -> None:
    """Check that every ACCEPT has its optimizer step before the next one, or none has."""
    if steps and len(steps) != len(accepts):
        raise ProgramError(
            f"{steps[0]!r}: {len(steps)} steps depend on {len(accepts)} ACCEPTs; allowed: one each"
        )
    behind = [*(accept.index for accept in accepts[1:]), float("inf")]
    for step, accept, limit in zip(steps, accepts, behind, strict=False):
        if not accept.index < step.index < limit or not order.holds(accept, step):
            raise ProgramError(
                f"{step!r} does not come between {accept.label}, for which it waits, and the next"
            )
