"""Times the passes of one rank, in the order of its program, so that caches are as in a step.

Between them the rank waits for its transfers as it does in a step, though nothing is sent:
a pass that waited finds its core idle and its caches cold.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import replace

from runtime.executor.context import RankContext
from runtime.executor.executor import Executor
from runtime.executor.null_groups import NullGroups
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch
from simulator.engine.pass_key import PassKey, key_of_task
from simulator.program.operations import Op
from simulator.program.stream import COMPUTE_STREAM
from simulator.workloads.describe import describe

Samples = dict[PassKey, list[float]]
"""Seconds by pass."""


class PassMeter:
    """The program of one rank, rehearsed without the other ranks.

    The executor runs it as in a step, with weights of its own.

    Args:
        seconds: how long transfers last, see `runtime.executor.null_groups.NullGroups`.
    """

    def __init__(self, rank: Rank, seconds: Callable[[Op, int, int], float]):
        self.progress, experiment = rank.progress, rank.experiment
        layers = describe(experiment)
        self.key_of = {
            id(task): key_of_task(task, task.op, layers, experiment.workload, experiment.parallel)
            for task in {id(i.task): i.task for i in rank.instructions}.values()
            if task.stream == COMPUTE_STREAM and experiment.workload.family.has_parameters
        }
        still = experiment.run.model_copy(update={"learning_rate": 1e-9})  # weights stay near
        calm = experiment.model_copy(update={"run": still})
        nobody = NullGroups(seconds, rank.device)
        self.executor = Executor(RankContext(replace(rank, experiment=calm), nobody))
        self.batch = microbatch(experiment, 0, 0, rank.device) if self.key_of else None
        self._walk = self._forever()
        self._took: dict[PassKey, float] = {}

    def time(self, into: Samples, goes_on: Callable[[], bool]) -> None:
        """Go on with the walk, for at least one pass, while `goes_on`, and keep the durations."""
        self.executor.stopwatch.restart()
        while self.key_of:
            key, seconds = next(self._walk)
            into.setdefault(key, []).append(seconds)
            self._took[key] = seconds
            self.progress.leave()  # a sign of life
            if not goes_on():
                return

    def warm_up(self) -> None:
        """Run every pass of the program once, not counted; only the first call does anything."""
        if not self._took:
            passes = sum(id(i.task) in self.key_of for i in self.executor.instructions)
            count = iter(range(passes - 1))
            self.time({}, lambda: next(count, None) is not None)

    @property
    def longest_s(self) -> float:
        """The longest pass, by the last duration of each."""
        return max(self._took.values(), default=0.0)

    @property
    def step_s(self) -> float:
        """The sum of all passes of a step, by the last duration of each."""
        keys = (self.key_of.get(id(i.task)) for i in self.executor.instructions)
        return sum(self._took.get(key, 0.0) for key in keys if key is not None)

    def fill(self, into: Samples, known: Container[PassKey]) -> None:
        """Go on until every distinct pass is in `into` or in `known`."""
        keys = {key for key in self.key_of.values() if key not in known}
        if keys:
            self.time(into, lambda: not keys <= into.keys())

    def close(self) -> None:
        """Release what the executor holds."""
        self.executor.close()

    def _forever(self) -> Iterator[tuple[PassKey, float]]:
        executor = self.executor
        assert self.batch is not None
        batches = dict.fromkeys({i.batch for i in executor.instructions}, self.batch)
        while True:
            for instruction in executor.walk(batches):
                key, index = self.key_of.get(id(instruction.task)), instruction.index
                if key is not None and executor.context.executed(instruction) is not None:
                    yield key, executor.end[index] - executor.posted[index]
