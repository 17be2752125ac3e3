"""Streams: the queues of a rank, in each of which one instruction is under way at a time."""

from __future__ import annotations

from typing import NamedTuple

from simulator.program.word import Word


class StreamKind(Word):
    """The kinds of streams, each for other operations."""

    COMPUTE = "compute"
    SEND = "send"
    RECV = "recv"
    QUEUE = "queue"
    GROUP = "group"


class Stream(NamedTuple):
    """A stream of a rank; its text form is for people and files and is never parsed.

    Attributes:
        kind: what is queued on it.
        peer: of messages, the other rank.
        axis: of operations of a group, what the group is for: an axis of the device mesh, or
            another purpose as ``zero``.
    """

    kind: StreamKind
    peer: int = -1
    axis: str = ""

    @classmethod
    def send(cls, peer: int) -> Stream:
        """Return the stream of messages to a peer."""
        return cls(StreamKind.SEND, peer)

    @classmethod
    def recv(cls, peer: int) -> Stream:
        """Return the stream of messages of a peer, which are received."""
        return cls(StreamKind.RECV, peer)

    @classmethod
    def queue(cls, peer: int) -> Stream:
        """Return the stream of messages in both directions that a peer accepts as they arrive."""
        return cls(StreamKind.QUEUE, peer)

    @classmethod
    def along(cls, axis: str) -> Stream:
        """Return the stream of operations of a group along an axis, or for another purpose."""
        return cls(StreamKind.GROUP, axis=axis)

    def moved(self, distance: int) -> Stream:
        """Return the same stream of the rank `distance` ahead, with its own peer."""
        return self if self.peer < 0 else self._replace(peer=self.peer + distance)

    def __str__(self) -> str:
        if self.peer >= 0:
            return f"{self.kind}:{self.peer}"
        return self.axis or self.kind.value


COMPUTE_STREAM = Stream(StreamKind.COMPUTE)
