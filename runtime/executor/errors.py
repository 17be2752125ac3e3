"""Failures of a rank, and the one line that says why."""

from __future__ import annotations

_TIMEOUTS = ("timed out", "timeout")
_LOST = ("connection", "socket", "broken pipe", "by peer", "remote process")


class ExecutionError(RuntimeError):
    """An instruction failed; the message names rank and instruction."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name if it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was not enough, whoever raised it."""
    return "out of memory" in first_line(error).lower()


def failure_of(error: BaseException, rank: int, timeout_s: float) -> str:
    """Return which rank failed and why, in one line; an `ExecutionError` names it itself."""
    reason = reason_of(error, timeout_s)
    return reason if isinstance(error, ExecutionError) else f"rank {rank}: {reason}"


def reason_of(error: BaseException, timeout_s: float) -> str:
    """Return why something failed, in one line.

    What torch's backends say of a rank that does not answer names lines of their source; here
    it is the same sentence for all of them.

    Args:
        error: what was raised.
        timeout_s: how long a rank waits for others (``run.timeout_s``).
    """
    text = first_line(error)
    lowered = text.lower()
    if isinstance(error, ExecutionError) or not isinstance(error, RuntimeError):
        return text
    if any(word in lowered for word in _TIMEOUTS):
        return f"no answer within {timeout_s:g} s"
    if any(word in lowered for word in _LOST):
        return "the connection to another rank was lost"
    return text
