"""Refuse a program that would hang or leak before anything is started."""

from __future__ import annotations

from simulator.program import COMMUNICATION, COMPUTE_STREAM, Instruction, Program


def validate(program: Program) -> None:
    """Check that `program` can run to its end and gives back all it allocates.

    Raises:
        ValueError: a message without a partner, members of a group that issue collectives
            in different orders, a cycle of waits (deadlock), a tensor freed twice, used
            before it exists, or never freed. The message names ranks and instructions.
    """
    _check_streams(program)
    meetings = program.meetings
    _check_deadlock(program, meetings)
    for instructions in program.ranks:
        _check_tensors(instructions)


def predecessors(program: Program) -> list[list[Instruction]]:
    """What each instruction waits for on its own rank: its stream and its `after`."""
    waits: list[list[Instruction]] = []
    for instructions in program.ranks:
        last: dict[str, Instruction] = {}
        for instruction in instructions:
            before = list(instruction.after)
            stream = instruction.task.stream
            if stream in last:
                before.append(last[stream])
            last[stream] = instruction
            waits.append(before)
    return waits


def _check_deadlock(program: Program, meetings: list[tuple[Instruction, ...]]) -> None:
    waits = predecessors(program)
    followers: list[list[int]] = [[] for _ in waits]
    pending = [0] * len(waits)
    everything = list(program)
    meeting_of: dict[int, int] = {}
    for number, meeting in enumerate(meetings):
        for member in meeting:
            meeting_of[member.uid] = number
    for instruction in everything:
        for other in waits[instruction.uid]:
            earlier = other.rank == instruction.rank and other.index < instruction.index
            if not earlier or program.ranks[other.rank][other.index] is not other:
                raise ValueError(
                    f"rank {instruction.rank}: {instruction.label} waits for {other.label}, "
                    f"which is not earlier in the list of this rank"
                )
            followers[other.uid].append(instruction.uid)
        pending[instruction.uid] = len(waits[instruction.uid])
    arrivals = [len(meeting) for meeting in meetings]
    ready = [uid for uid, count in enumerate(pending) if count == 0]
    done = [False] * len(waits)

    def finish(uid: int) -> None:
        done[uid] = True
        for follower in followers[uid]:
            pending[follower] -= 1
            if pending[follower] == 0:
                ready.append(follower)

    while ready:
        uid = ready.pop()
        if uid not in meeting_of:
            finish(uid)
            continue
        number = meeting_of[uid]
        arrivals[number] -= 1
        if arrivals[number] == 0:
            for member in meetings[number]:
                finish(member.uid)
    if not all(done):
        stuck: dict[int, Instruction] = {}
        for instruction in everything:
            if not done[instruction.uid] and pending[instruction.uid] == 0:
                stuck.setdefault(instruction.rank, instruction)
        where = "; ".join(f"rank {rank} waits in {i.label}" for rank, i in stuck.items())
        raise ValueError(f"deadlock: {where}")


def _check_tensors(instructions: list[Instruction]) -> None:
    """Follow every tensor of one rank, in list order (an order the rank can execute)."""
    held: dict[tuple[str, int], Instruction] = {}
    freed: dict[tuple[str, int], Instruction] = {}
    for instruction in instructions:
        rank, label, microbatch = instruction.rank, instruction.label, instruction.microbatch
        for tensor in instruction.task.allocates:
            key = (tensor.name, microbatch)
            if key in held:
                raise ValueError(
                    f"rank {rank}: {label} allocates {tensor.name} of microbatch {microbatch}, "
                    f"which {held[key].label} already holds"
                )
            held[key] = instruction
        for name in instruction.task.frees:
            key = (name, microbatch)
            if key not in held:
                earlier = f"{freed[key].label} already freed it" if key in freed else "never made"
                raise ValueError(
                    f"rank {rank}: {label} frees {name} of microbatch {microbatch}: {earlier}"
                )
            del held[key]
            freed[key] = instruction
    for (name, microbatch), owner in held.items():
        raise ValueError(
            f"rank {owner.rank}: {owner.label} allocates {name} of microbatch {microbatch}, "
            f"which is never freed"
        )


def _check_streams(program: Program) -> None:
    """Communication must not be queued on the compute stream, nor compute elsewhere."""
    for instruction in program:
        on_compute = instruction.task.stream == COMPUTE_STREAM
        if on_compute == (instruction.task.op in COMMUNICATION):
            raise ValueError(f"{instruction!r} is queued on stream {instruction.task.stream!r}")
