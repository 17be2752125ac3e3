"""Changes of calls that are collected first and made together."""

from __future__ import annotations

from itertools import pairwise

from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template, expand
from simulator.program.tensors import Tensor, TensorName
from simulator.strategies.edits import Edits

FORWARD, BACKWARD = Task(Op.FORWARD, 0), Task(Op.BACKWARD, 0)
WHOLE = TensorName.other("whole")
GATHER = Task(Op.ALL_GATHER, 0, mnemonic="UNSHARD", stream=Stream.along("zero"), group=(0, 1))


def gathered_ahead(count: int) -> list[Call]:
    """Return passes in each of which the parameters of the next one are gathered."""
    template = Template([Entry(FORWARD), Entry(BACKWARD)])
    calls = [Call(template, microbatch) for microbatch in range(count)]
    edits = Edits()
    for call, following in pairwise(calls):
        gather = edits.insert((call, 0), GATHER, following.microbatch)
        edits.wait(following, 0, gather)
        edits.wait(call, 1, gather)
        edits.allocate(call, 0, Tensor(WHOLE, 8))
        edits.free(call, 1, WHOLE)
    edits.apply()
    return calls


def test_calls_that_change_alike_share_a_template() -> None:
    calls = gathered_ahead(6)
    assert len({call.template for call in calls}) == 3  # the first, the last, and all between


def test_what_is_changed_is_found_in_the_instructions() -> None:
    listed = expand(gathered_ahead(3))
    assert [i.label for i in listed] == [
        *("0F0", "0UNSHARD1", "0B0"),
        *("0F1", "0UNSHARD2", "0B1"),
        *("0F2", "0B2"),
    ]
    waits = {i.label: [other.label for other in i.after] for i in listed}
    assert waits == {
        "0F0": [],
        "0UNSHARD1": ["0F0"],
        "0B0": ["0UNSHARD1"],
        "0F1": ["0UNSHARD1"],
        "0UNSHARD2": ["0F1"],
        "0B1": ["0UNSHARD2"],
        "0F2": ["0UNSHARD2"],
        "0B2": [],
    }
    assert [i.task.allocates for i in listed if i.label == "0F1"] == [(Tensor(WHOLE, 8),)]
    assert [i.task.frees for i in listed if i.label == "0B1"] == [(WHOLE,)]
