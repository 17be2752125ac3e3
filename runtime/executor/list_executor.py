"""The common part of executors of a rank's list: what they record, and how they fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from runtime.executor.context import Batches, RankContext
from runtime.executor.errors import ExecutionError, reason_of
from runtime.executor.observers import Observer
from simulator.program.instruction import Instruction

FAILURE_POLL_S = 0.2
CLOSE_S = 1.0


class ListExecutor(ABC):
    """Walks the list of one rank and times its instructions.

    Args:
        context: what the instructions work on.
        observers: are told of every instruction, in this order.

    Attributes:
        posted, end: of each instruction of the last step, in seconds of the host's clock.
        failure: the first failure on a stream; whoever waits for anything raises it.
    """

    def __init__(self, context: RankContext, observers: Sequence[Observer] = ()):
        self.context, self.rank, self.observers = context, context.rank, tuple(observers)
        self.instructions = self.rank.instructions
        self.timeout_s = self.rank.experiment.run.timeout_s
        count = len(self.instructions)
        self.posted, self.end = [0.0] * count, [0.0] * count
        self.failure: ExecutionError | None = None

    @abstractmethod
    def step(self, batches: Batches) -> None:
        """Run the list once: all training steps of the program; fills `posted` and `end`.

        Args:
            batches: input and target per step and microbatch of this replica.

        Raises:
            ExecutionError: an instruction failed or waited longer than the timeout.
        """

    @abstractmethod
    def close(self) -> None:
        """End the threads of all streams; a stream that hangs is left to the process's end."""

    def late(self) -> TimeoutError:
        """Return the error of what was waited for too long."""
        return TimeoutError(f"no answer within {self.timeout_s:g} s")

    def failed(self, instruction: Instruction, error: BaseException) -> ExecutionError:
        """Return the error that names an instruction and says why it has failed."""
        reason = reason_of(error, self.timeout_s)
        return ExecutionError(f"rank {self.rank.number}, {instruction.label}: {reason}")
