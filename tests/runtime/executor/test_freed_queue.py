"""What was freed is kept until its event has passed, and not longer than that of another one."""

from __future__ import annotations

import weakref

import torch

from runtime.executor.freed_queue import FreedQueue
from runtime.executor.host_streams import HostStreams
from runtime.executor.ledger import Freed


def test_memory_is_kept_until_its_event_has_passed():
    streams, queue, dropped = HostStreams(), FreedQueue(), []
    ends = [streams.event(), streams.event()]
    for end in ends:
        end.mark.passed.clear()
    tensor = torch.ones(3)
    storage = weakref.ref(tensor.untyped_storage())
    queue.add(ends[0], Freed([tensor]))
    queue.add(ends[1], Freed([], [lambda: dropped.append("whole")]))
    del tensor
    queue.drop_passed()
    assert (len(queue), dropped) == (2, [])
    assert storage() is not None
    ends[1].mark.now()
    queue.drop_passed()
    assert (len(queue), dropped) == (1, ["whole"])  # it need not wait for the other
    ends[0].mark.now()
    queue.drop_passed()
    assert (len(queue), storage()) == (0, None)
