"""The distance between replicas whose parameters differ, in every training step.

The consensus distance is √(1/n · Σ_i ‖x_i - x̄‖²) over the n replicas, x_i the parameters of one and
x̄ their mean (Kong et al. 2021, "Consensus Control for Decentralized Deep Learning", section 3).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.executor.context import RankContext
from runtime.executor.observers import Observer
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.tensors import TensorName


class ConsensusObserver(Observer):
    """Copies the parameters that the gradients of each step were computed with.

    The copies are in the memory of the host, where one for each step is more likely to fit.

    Attributes:
        is_armed: whether it does so in the iterations to come; each forgets the one before.
        copies: of each step and bucket, as its optimizer step finds them.
    """

    def __init__(self, context: RankContext):
        self._context = context
        self.is_armed = False
        self.copies: dict[tuple[int, TensorName], Tensor] = {}

    def begin_step(self) -> None:
        """Forget the iteration before."""
        self.copies.clear()

    def before(self, instruction: Instruction) -> None:
        """Copy what an optimizer step is about to update."""
        if self.is_armed and instruction.task.op is Op.OPTIMIZER_STEP:
            for parameters in self._context.updated_by(instruction.task):
                key = instruction.step, parameters.bucket.name
                self.copies[key] = parameters.used.to("cpu", copy=True)

    def distances(self) -> list[float]:
        """Return the distance in each step, and at the end; every rank must ask together."""
        context = self._context
        experiment, horizon = context.rank.experiment, context.rank.program.horizon
        mesh, group = experiment.mesh, None
        for replicas in dict.fromkeys(mesh.group(rank, "data") for rank in range(mesh.world_size)):
            made = dist.new_group(list(replicas), backend="gloo")
            if context.rank.number in replicas:
                group, count = made, len(replicas)
        squares = torch.zeros(horizon + 1, dtype=torch.float64)
        for step in range(horizon + 1):
            for name, parameters in context.parameters.items():
                mine = self.copies[step, name] if step < horizon else parameters.estimate
                mine = mine.double().cpu()
                mean = mine.clone()
                dist.all_reduce(mean, group=group)
                apart = (mine - mean / count).square().sum()
                squares[step] += apart / parameters.bucket.copies
        dist.all_reduce(squares)
        distances: list[float] = (squares / count / experiment.parallel.context).sqrt().tolist()
        return distances
