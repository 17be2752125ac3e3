"""A run is what follows in a call, meets nobody, and has ended when its compute has."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.runs import Runs, Times, settled
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template

FORWARD, BACKWARD = Task(Op.FORWARD, 0), Task(Op.BACKWARD, 0)
TENSOR = Stream.along("tensor")
SUM = Task(Op.ALL_REDUCE, 0, mnemonic="SUM", stream=TENSOR, group=(0, 1))
SEND = Task(Op.SEND, 0, stream=Stream.send(1), peer=1)
PASS = Template([Entry(FORWARD), Entry(SUM, (0,)), Entry(BACKWARD, (1,)), Entry(SUM), Entry(SEND)])


def program(calls: list[Call]) -> Program:
    return Program(calls=[calls])


class OneSecondEach:
    """Everything takes a second and waits for what is listed before it; messages meet others."""

    def __init__(self, program: Program) -> None:
        self.listed = program.ranks[0]
        self.asked: list[int] = []

    def is_alone(self, uid: int) -> bool:
        return self.listed[uid].task.op is not Op.SEND

    def timed(self, uids: Sequence[int]) -> Times:
        self.asked.append(len(uids))
        starts = [float(number) for number in range(len(uids))]
        return starts, starts, [start + 1.0 for start in starts]

    def uses(self, uid: int) -> list[str]:
        return ["a link"] if self.listed[uid].task.op is Op.ALL_REDUCE else []

    def waits(self, uid: int) -> list[int]:
        return [other.uid for other in self.listed[uid].after]


def test_a_run_ends_with_the_last_compute_that_all_before_it_have_ended_with() -> None:
    made = program([Call(PASS, 0)])
    run = Runs(made, OneSecondEach(made)).at(0, [])
    assert run is not None
    assert run.length == 3  # the sum behind it goes on, and the send meets another rank
    assert run.times == ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert run.counts == {COMPUTE_STREAM: 2, TENSOR: 1}
    assert run.free == {COMPUTE_STREAM: 3.0, TENSOR: 2.0}


def test_a_run_is_made_once_for_all_calls_alike() -> None:
    made = program([Call(PASS, 0), Call(PASS, 1), Call(PASS.changed(), 2)])
    conditions = OneSecondEach(made)
    runs = Runs(made, conditions)
    first = runs.at(0, [])
    assert all(runs.at(begin, []) == first for begin in (5, 10))
    assert conditions.asked == [4]
    runs.at(2, [])
    assert conditions.asked == [4, 2]  # from the middle of a call on


def test_what_is_left_of_the_call_before_comes_first() -> None:
    made = program([Call(PASS, 0), Call(PASS, 1)])
    run = Runs(made, OneSecondEach(made)).at(5, [3])
    assert run is not None
    assert (run.length, len(run.times[0])) == (3, 4)
    assert run.counts == {COMPUTE_STREAM: 2, TENSOR: 2}


def test_what_waits_outside_is_known() -> None:
    receive = Call.of_task(Task(Op.RECV, 0, stream=Stream.recv(1), peer=1), 0)
    begins = PASS.changed({2: Entry(BACKWARD, (1, ~0))})
    made = program([receive, Call(begins, 0, [(receive, 0)])])
    run = Runs(made, OneSecondEach(made)).at(1, [])
    assert run is not None
    assert run.outside == (2,)


def test_a_run_is_broken_off_where_nothing_of_it_is_under_way() -> None:
    entries = [Entry(FORWARD), Entry(SUM, (0,)), Entry(BACKWARD, (1,)), Entry(SUM, (2,))]
    made = program([Call(Template([*entries, Entry(BACKWARD, (3,)), Entry(SEND)]), 0)])
    runs = Runs(made, OneSecondEach(made))
    run = runs.at(0, [])
    assert run is not None
    assert run.uses == {"a link"}
    assert run.breaks == ((1.0, 1), (3.0, 3), (5.0, 5))
    assert runs.until(run, 0, [], 5.0) is run
    part = runs.until(run, 0, [], 4.9)
    assert part is not None
    assert part is runs.until(run, 0, [], 3.0)
    assert part.length == 3
    assert part.counts == {COMPUTE_STREAM: 2, TENSOR: 1}
    assert part.free == {COMPUTE_STREAM: 3.0, TENSOR: 2.0}
    assert part.awaited == (2,)
    assert runs.until(run, 0, [], 2.9) is None  # a single instruction
    assert runs.until(run, 0, [], 0.5) is None


def test_a_run_of_which_something_is_awaited_is_broken_off_behind_it() -> None:
    entries = [Entry(FORWARD), Entry(SUM, (0,)), Entry(BACKWARD, (1,)), Entry(BACKWARD, (2,))]
    made = program([Call(Template([*entries, Entry(SEND, (2,))]), 0)])
    runs = Runs(made, OneSecondEach(made))
    run = runs.at(0, [])
    assert run is not None
    assert (run.length, run.awaited) == (4, (2, 3))
    part = runs.until(run, 0, [], 10.0)
    assert part is not None
    assert part.length == 3


def test_a_single_instruction_is_no_run() -> None:
    made = program([Call(Template([Entry(FORWARD), Entry(SEND)]), 0)])
    assert Runs(made, OneSecondEach(made)).at(0, []) is None


def test_settled_is_what_nothing_goes_on_behind() -> None:
    streams = [COMPUTE_STREAM, TENSOR, COMPUTE_STREAM, TENSOR]
    assert settled(streams, [1.0, 2.0, 3.0, 4.0]) == 3
    assert settled(streams, [1.0, 5.0, 3.0, 4.0]) == 1
    assert settled(streams[1:2], [1.0]) == 0
