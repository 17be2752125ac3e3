"""Messages are told apart by their tags."""

from __future__ import annotations

from collections import defaultdict

import pytest

from runtime.executor.operations.messages import tag
from simulator.program.operations import Op
from simulator.strategies.lowering import lower


@pytest.mark.parametrize(
    "plan",
    [
        {"pipeline": 2, "schedule": "gpipe", "microbatches": 4},
        {"pipeline": 2, "schedule": "dualpipe-v", "virtual_stages": 2, "microbatches": 4},
        {"pipeline": 2, "schedule": "interleaved-1f1b", "virtual_stages": 2, "microbatches": 4},
    ],
    ids=str,
)
def test_tags_agree_on_both_sides_and_differ_within_a_step(experiment, plan):
    sent, received = defaultdict(list), defaultdict(list)
    for instruction in lower(experiment(**plan)):
        task = instruction.task
        if task.op is Op.SEND:
            sent[instruction.rank, task.peer].append(tag(instruction))
        elif task.op is Op.RECV:
            received[task.peer, instruction.rank].append(tag(instruction))
    assert sent
    assert sent.keys() == received.keys()
    for pair, tags in sent.items():
        assert sorted(tags) == sorted(received[pair])
        assert len(set(tags)) == len(tags)
