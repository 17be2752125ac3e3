"""The passes of a rank as columns of integers, and when the receives between stages are posted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from simulator.program.operations import Op
from simulator.strategies.schedules.passes import Pass
from simulator.strategies.stages.stage import Stage

Integers = npt.NDArray[np.int64]

OPERATIONS = (Op.FORWARD, Op.BACKWARD, Op.BACKWARD_INPUT, Op.BACKWARD_WEIGHT)


class PassColumns:
    """The passes of one rank, in order.

    What starts a pass has a number made of its stage, its microbatch and its direction, so that
    the sender of a message and its receiver know it by the same one.

    Args:
        passes: as they are.
        num_stages: of the whole pipeline.

    Attributes:
        stage, microbatch: per pass.
        kind: per pass a number for its operation and stage.
        direction: 1 forward, -1 backward, 0 for backward passes for weights, which nothing starts.
        start: per pass the number of what starts it; -1 where nothing does.
        next: per pass the number of what it starts in the stage that comes next in its direction.
    """

    def __init__(self, passes: Sequence[Pass], num_stages: int) -> None:
        self.passes, self._num_stages = passes, num_stages
        first, second, third, _ = OPERATIONS
        operation = [
            0 if step[0] is first else 1 if step[0] is second else 2 if step[0] is third else 3
            for step in passes
        ]
        self.stage = np.array([step[1] for step in passes], dtype=np.int64)
        self.microbatch = np.array([step[2] for step in passes], dtype=np.int64)
        self.kind = np.array(operation, dtype=np.int64) + self.stage * len(OPERATIONS)
        self.direction = np.array([1, -1, -1, 0])[operation or np.empty(0, int)]
        self.start = np.where(self.direction == 0, -1, self._numbers(self.stage))
        self.next = self._numbers(self.stage + self.direction)

    def _numbers(self, stage: Integers) -> Integers:
        found: Integers = (self.microbatch * (self._num_stages + 2) + stage + 1) * 2
        return found + (self.direction > 0)

    def sent(self, source: int, stages: Mapping[int, Stage]) -> dict[int, Integers]:
        """Return, per target rank, the numbers of what messages start there, in order.

        Args:
            source: the global rank that sends.
            stages: those of `source`, by index.
        """
        targets = np.full((3, self._num_stages), -1, dtype=np.int64)  # by direction
        for index, stage in stages.items():
            targets[1, index] = source if stage.next_rank is None else stage.next_rank
            targets[-1, index] = source if stage.previous_rank is None else stage.previous_rank
        target = targets[self.direction, self.stage]
        return {
            rank: self.next[target == rank]
            for rank in dict.fromkeys(target[(target >= 0) & (target != source)].tolist())
        }

    def posted(self, incoming: Iterable[Integers]) -> tuple[Integers, Integers]:
        """Return which passes' receives are posted ahead of which pass, peers in order.

        A receive is posted one pass ahead of its own, earlier where the order in which its peer
        sends asks for it.

        Args:
            incoming: of every peer the numbers of what its messages start, in its order.

        Returns:
            The positions of passes, ordered by where they are posted; and per pass, and twice
            more at the end, where those that are posted before it begin.
        """
        order = np.argsort(self.start, kind="stable")
        ordered = self.start[order]
        where, which = [order[:0]], [order[:0]]
        for numbers in incoming:
            found = np.searchsorted(ordered, numbers)
            found = np.minimum(found, max(ordered.size - 1, 0))
            position = order[found[ordered[found] == numbers]] if ordered.size else order
            ahead = np.maximum(position - 1, 0)
            where.append(np.minimum.accumulate(ahead[::-1])[::-1])
            which.append(position)
        place = np.concatenate(where)
        by_place = np.argsort(place, kind="stable")
        begin = np.searchsorted(place[by_place], np.arange(len(self.passes) + 2))
        return np.concatenate(which)[by_place], begin
