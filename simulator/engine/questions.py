"""The questions that the engine asks about the costs of instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Protocol

import numpy as np

from simulator.cluster.resource import Resource
from simulator.engine.contention import Demand
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.task import Task


class Costs(Protocol):
    """The questions that the engine asks about instructions.

    Subclasses that override only `seconds` have neither delays nor anything shared.

    Attributes:
        capacities: the amount that there is of each shared resource.
    """

    capacities: dict[Resource, float]

    def seconds(self, instruction: Instruction) -> float:
        """Return the duration at full speed, for communication from the last arrival on."""

    def delay(self, instruction: Instruction) -> float:
        """Return the time between being able to start (or to post) and doing so."""
        return 0.0

    def all_seconds(self, program: Program) -> list[float]:
        """Return `seconds` of every instruction."""
        return [self.seconds(instruction) for instruction in program]

    def all_delays(self, program: Program) -> list[float]:
        """Return `delay` of every instruction."""
        return [self.delay(instruction) for instruction in program]

    def all_launches(self, program: Program) -> list[float]:
        """Return before when the host cannot have launched each instruction; none: it waits."""
        return []

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        """Return the shared resources that the delay waits for, and its weight.

        Without any, the delay is as long whatever else runs.
        """
        return (), 1.0

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Return the shared resources used at full speed; without any, nothing can slow it."""
        return ()

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """Return the weight with which it gets its part of a resource that is short."""
        return 1.0

    def are_alike(self) -> bool:
        """Tell whether all instructions of one task on one rank have the same costs."""
        return False

    def likeness(self, program: Program) -> Sequence[int]:
        """Return a number for every instruction.

        Participants with equal numbers have equal demands and weights.
        """
        return range(len(program))

    def own(self, rank: int) -> Set[Resource]:
        """Return the shared resources that nobody but this rank uses."""
        return frozenset()


def seconds_by_task(program: Program, seconds: Callable[[int, Task], float]) -> list[float]:
    """Return the seconds of every instruction, which depend on its rank and its task alone."""
    found: list[float] = []
    for rank, columns in zip(program.members, program.columns, strict=True):
        of_task = np.array([seconds(rank, task) for task in columns.tasks], dtype=np.float64)
        found += of_task[columns.task].tolist()
    return found


class CopiedCosts(Costs):
    """The costs of instructions of which a program has copies."""

    def __init__(self, costs: Costs, originals: Sequence[Instruction]) -> None:
        self.capacities = costs.capacities
        self._costs, self._originals = costs, originals

    def seconds(self, instruction: Instruction) -> float:
        """Return the duration of the original."""
        return self._costs.seconds(self._originals[instruction.uid])

    def delay(self, instruction: Instruction) -> float:
        """Return the delay of the original."""
        return self._costs.delay(self._originals[instruction.uid])

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Return the demand of the originals."""
        return self._costs.demand(self._of(participants))

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """Return the weight of the originals."""
        return self._costs.weight(self._of(participants))

    def _of(self, participants: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
        return tuple(self._originals[member.uid] for member in participants)
