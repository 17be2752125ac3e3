"""Workers ask a master for microbatches, so that fast ones do more; the update is synchronous.

The list of a worker has passes for every microbatch of a step, as it may come to do all of them.
Before each it asks the first server for one, and the answer says which microbatch that is, or that
there is none: then the rest of its passes of the step have nothing to do. Gradients are summed on
the servers as with a parameter server, each microbatch with the same weight whoever did it, so that
the update is that of one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.instruction import Instruction
from simulator.program.operations import RUNS_OF_PASSES, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import WORK, WORK_BYTES
from simulator.program.work_queue import WorkQueue
from simulator.strategies.gradients.own_pace import check_backend, check_whole_models
from simulator.strategies.gradients.parameter_server import server_ranks
from simulator.strategies.lowered import Lowered

QUEUE = "work"
"""The queue in which workers wait, and what the stream is for on which they are accepted."""

SCHEDULE = "1f1b"


def check(experiment: Experiment) -> None:
    """Refuse what workers that are handed out microbatches do not do.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    if not parallel.hands_out_work:
        return
    asked = f"parallel.data_style = {parallel.data_style!r}"
    check_whole_models(experiment, "each worker has the whole model")
    if parallel.shares_servers:
        raise ExperimentError(
            f"parallel.servers = 'shared': with {asked} a rank of its own hands out microbatches; "
            "allowed: a whole number"
        )
    if parallel.schedule != SCHEDULE:
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: with {asked} a worker ends a microbatch "
            f"before it asks for another one; allowed: {SCHEDULE!r}"
        )
    check_backend(experiment, "a server serves whoever comes")


def hand_out_work(lowered: Lowered) -> Lowered:
    """Let workers ask for every microbatch, and the first server give them out."""
    experiment = lowered.experiment
    master = server_ranks(experiment)[0]
    workers = tuple(rank for rank in lowered.ranks if rank < master)
    count = experiment.parallel.listed_microbatches

    def change(rank: int, instructions: list[Instruction]) -> list[Instruction]:
        if rank in workers:
            return _with_requests(instructions, master)
        if rank == master:
            return _accepts(workers, count, experiment.run.horizon) + instructions
        return instructions

    return lowered.with_lists(change)


def _task(op: Op, stream: Stream) -> Task:
    return Task(
        op=op,
        stage=0,
        mnemonic="WORK" if op is Op.RECV else "",
        stream=stream,
        tensor=WORK,
        nbytes=WORK_BYTES,
        queue=QUEUE,
    )


def _with_requests(instructions: Sequence[Instruction], master: int) -> list[Instruction]:
    """Return the list of a worker, which asks before each of its microbatches, and once more.

    It asks when it has ended the one before; for the first of a step, when it has got all
    parameters of the step before, so that all others have ended that step, too.
    """
    ask = replace(_task(Op.RECV, Stream.queue(master)), peer=master)
    queued: dict[int, Task] = {}
    passes = [i for i in instructions if i.task.op in RUNS_OF_PASSES]
    begins = {i.batch: i for i in reversed(passes)}
    last_of_step = {i.step: i for i in passes}
    built: list[Instruction] = []
    before: list[Instruction] = []  # what the next request waits for: a pass, and a request
    received: list[Instruction] = []  # parameters of this step
    for one in instructions:
        if begins.get(one.batch) is one:
            asked = Instruction(ask, one.microbatch, [*before, *received], one.step)
            one.after = (*one.after, asked)
            built.append(asked)
            before, received = [asked], []
        built.append(one)
        if one.task.op is Op.BROADCAST:
            received.append(one)
        if one.task.op not in RUNS_OF_PASSES:
            continue
        before = [i for i in before if i.task is ask] + [one]
        one.task = queued.setdefault(id(one.task), replace(one.task, queue=QUEUE))
        if last_of_step[one.step] is one:
            built.append(Instruction(ask, -1, before, one.step))
            before = [built[-1], one]
    return built


def _accepts(workers: tuple[int, ...], count: int, steps: int) -> list[Instruction]:
    """Return the answers of the master, which wait for nothing but each other.

    In each step every microbatch is given out, and every worker told that there is no more.
    """
    accept = replace(_task(Op.ACCEPT, Stream.along(QUEUE)), group=workers, policy=WorkQueue(count))
    built: list[Instruction] = []
    for step in range(steps):
        for number in range(count + len(workers)):
            built.append(Instruction(accept, number, built[-1:], step))
    return built
