"""Streams run beside each other, each in order."""

from __future__ import annotations

import pytest
import torch

from runtime.executor.streams import Stream, Ticket


def test_a_stream_runs_in_order_and_hands_errors_to_who_waits():
    stream, seen = Stream("test", torch.device("cpu")), []

    def fail():
        raise KeyError("broken")

    tickets = [stream.submit(lambda n=n: seen.append(n)) for n in range(50)]
    failed, after = stream.submit(fail), stream.submit(lambda: seen.append("after"))
    after.wait(30.0)
    assert seen == [*range(50), "after"]
    for ticket in tickets:
        ticket.wait(0.0)
    with pytest.raises(KeyError, match="broken"):
        failed.wait(30.0)
    stream.close()


def test_a_ticket_does_not_wait_for_ever():
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        Ticket().wait(0.01)
