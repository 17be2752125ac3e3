"""Streams are equal by what they are for, and written as people read them."""

from __future__ import annotations

import pickle

from simulator.program.stream import COMPUTE_STREAM, Stream

STREAMS = {
    COMPUTE_STREAM: "compute",
    Stream.send(3): "send:3",
    Stream.recv(0): "recv:0",
    Stream.queue(2): "queue:2",
    Stream.along("zero"): "zero",
}


def test_the_text_is_short() -> None:
    assert [str(stream) for stream in STREAMS] == list(STREAMS.values())
    assert f"{Stream.send(12)}" == "send:12"


def test_streams_are_told_apart_by_kind() -> None:
    """A stream along an axis that is called like another stream is another one."""
    assert Stream.along("compute") != COMPUTE_STREAM
    assert Stream.send(1) != Stream.recv(1)
    assert pickle.loads(pickle.dumps(Stream.send(1))) == Stream.send(1)


def test_a_stream_moves_with_its_peer() -> None:
    assert Stream.send(3).moved(-2) == Stream.send(1)
    assert Stream.along("data").moved(5) == Stream.along("data")
    assert COMPUTE_STREAM.moved(5) is COMPUTE_STREAM
