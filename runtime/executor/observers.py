"""Observers: they are told of every instruction that a rank executes."""

from __future__ import annotations

from typing import ClassVar

from runtime.executor.context import RankContext
from simulator.program.instruction import Instruction
from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.staleness import UPDATES, Staleness, updates_of


class Observer:
    """Is told of every instruction, in the thread that executes it.

    Attributes:
        takes_time: `after` may sleep, so an instruction ends when that returns and not when
            the device has finished.
    """

    takes_time: ClassVar[bool] = False

    def begin_step(self) -> None:
        """Note that a step begins."""

    def before(self, instruction: Instruction) -> None:
        """Note that `instruction` is about to be executed."""

    def after(self, instruction: Instruction, begin: float) -> None:
        """Note that the work of `instruction` is done, before what it frees is let go.

        Args:
            instruction: what was executed.
            begin: when it was posted, in seconds of the host's clock.
        """


class StalenessObserver(Observer):
    """Notes how many updates behind the weights were that each gradient was computed with.

    Attributes:
        staleness: of the current step.
    """

    def __init__(self, context: RankContext):
        self._context = context
        program = context.rank.program
        self._updates = updates_of(program.columns[program.members.index(context.rank.number)])
        self._own = {task.stage for task in self._updates if task.op is Op.OPTIMIZER_STEP}
        self.staleness = Staleness()

    def begin_step(self) -> None:
        """Forget the step before."""
        self.staleness = Staleness()

    def before(self, instruction: Instruction) -> None:
        """Note the version that an update supersedes, or parameters that a server sends."""
        task = instruction.task
        if task.op in UPDATES and task in self._updates:
            for parameters in self._context.updated_by(task):
                self.staleness.update(task.stage, parameters.newest)

    def after(self, instruction: Instruction, begin: float) -> None:
        """Note the version that a forward pass used, and the gradient that a backward adds."""
        task = instruction.task
        if task.op is Op.FORWARD:
            parameters = self._context.parameters_of(task.layers)
            mine = task.stage not in self._own or (parameters and parameters.optimizer)
            if parameters is not None and mine:
                self.staleness.use(task.stage, instruction.batch, parameters.active)
        elif task.op in LAST_BACKWARDS:
            self.staleness.contribute(task.stage, instruction.batch)
