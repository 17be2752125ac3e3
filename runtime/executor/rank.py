"""One rank's part in a run: what it executes, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from runtime.progress import Progress
from simulator.experiment.experiment import Experiment
from simulator.experiment.roles import TRAINER, Role
from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.program import Program


@dataclass(frozen=True)
class Rank:
    """One rank's part in a run.

    Attributes:
        experiment: what is trained, and how.
        program: the instruction lists of all ranks; validated.
        number: of this rank, from 0.
        device: where its tensors live.
        progress: where other processes can see which instruction this rank is in.
    """

    experiment: Experiment
    program: Program
    number: int
    device: torch.device
    progress: Progress

    @property
    def instructions(self) -> list[Instruction]:
        """The list of this rank."""
        return self.program.ranks[self.number]

    @property
    def buckets(self) -> list[Bucket]:
        """The parameters that this rank holds."""
        return self.program.buckets[self.number]

    @property
    def role(self) -> Role:
        """The role of this rank."""
        return self.experiment.role_of(self.number)[0]

    @property
    def coordinate(self) -> Mapping[str, int]:
        """The position of this rank on each axis of the mesh of its role."""
        return self.role.coordinate(self.number)

    @property
    def trains(self) -> bool:
        """True if this rank computes passes: others only serve those that do."""
        return self.role.name == TRAINER
