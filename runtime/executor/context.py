"""The context of a rank: everything that its operations may touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from runtime.executor.codecs.rank_coders import RankCoders
from runtime.executor.graph import Graph
from runtime.executor.groups import Groups
from runtime.executor.learning_rate import LearningRate
from runtime.executor.ledger import Freed, Ledger
from runtime.executor.loss_scale import LossScaler
from runtime.executor.outer_optimizer import OuterOptimizer
from runtime.executor.parameters import Parameters
from runtime.executor.rank import Rank
from runtime.executor.rank_parameters import parameters_of
from runtime.executor.reception import Reception
from runtime.models.deferral import Deferred
from runtime.models.dtypes import TORCH_DTYPE
from runtime.models.segment import Segment, boundary
from simulator.program.accept_queue import Decision, is_dependent
from simulator.program.arrival import Outcome
from simulator.program.arrivals import acceptance_of
from simulator.program.batch import Batch
from simulator.program.instruction import Instruction
from simulator.program.operations import RUNS_OF_PASSES, Op
from simulator.program.task import Task
from simulator.program.tensors import (
    WORK,
    TensorKey,
    TensorKind,
    TensorName,
    gradient,
    tensor_key,
)
from simulator.strategies.stages.dataflow import Flow
from simulator.timeline.timeline import MemoryParts
from simulator.workloads.describe import describe

Batches = Mapping[Batch, tuple[Tensor, Tensor]]
"""Input and target by training step and microbatch."""


@dataclass(frozen=True)
class BoundaryNames:
    """The program's names of the tensors at the boundaries of one segment.

    Attributes:
        activations: by boundary: those that the segment reads and makes.
        outputs: by the name of a part of a gradient: the boundary it belongs to.
    """

    activations: dict[int, TensorName]
    outputs: dict[TensorName, int]

    @classmethod
    def of(cls, segment: Segment, flow: Flow) -> BoundaryNames:
        """Return the names at the boundaries of `segment`."""
        outputs = {gradient(b): b for b in segment.outputs}
        outputs |= {name: b for b in segment.outputs for name in flow.gradients(b)}
        both = (*segment.inputs, *segment.outputs)
        return cls({b: flow.activation(b) for b in both}, outputs)


class RankContext:
    """The tensors, graphs, parameters and communicators of one rank.

    Args:
        rank: whose they are.
        groups: communicators of the program.

    Attributes:
        segments: the modules, by layer range; names: those of their tensors.
        parameters: flat buffers by the name of their bucket.
        outer: outer optimizers by the tensor that they change.
        coders: of the buckets that it encodes.
        tensors: boundary tensors by (logical name, batch), as all that is of a microbatch.
        graphs: what forward passes left to backward passes, by (first layer, batch).
        split: (layers, batch) whose backward pass is split; deferred: their weight
            gradients to come, by (first layer, batch).
        batches: those of the steps of the program; received: inputs that another rank sent.
        losses: of the microbatches, each with its step, on the rank that computes them.
        learning_rate: that of every training step.
        norm_squared: that of the model's gradients, as far as the program has summed it.
        receptions: by queue, the requests that have come, if this rank serves them.
        granted: the microbatches that this rank got for the asking, by what it asked for.
        ledger: the bytes that this rank holds.
        keep_gradients: copy each bucket's reduced gradients to `last_gradients` before an
            update.
    """

    def __init__(self, rank: Rank, groups: Groups):
        self.rank, self.groups = rank, groups
        experiment, device = rank.experiment, rank.device
        passes = [i for i in rank.instructions if i.task.op is Op.FORWARD]
        self.segments = {
            layers: Segment(experiment, *layers, device, rank.coordinate)
            for layers in sorted({i.task.layers for i in passes})
        }
        flow = Flow(describe(experiment))
        self.names = {
            layers: BoundaryNames.of(segment, flow) for layers, segment in self.segments.items()
        }
        tasks = dict.fromkeys(i.task for i in rank.instructions)
        self.parameters = parameters_of(
            experiment, rank.buckets, self.segments, rank.number, device, tasks
        )
        self._of_layers = {
            layers: parameters
            for parameters in self.parameters.values()
            for layers in parameters.segments
        }
        self._of_tensor = self.parameters | {
            name: parameters
            for parameters in self.parameters.values()
            for name in parameters.bucket.parameter_names
        }
        self.outer = {
            task.tensor: OuterOptimizer(self._of_tensor[task.tensor].precise, task.coefficients[1])
            for task in tasks
            if task.op is Op.OUTER_STEP and task.tensor
        }
        self.coders = RankCoders(rank, self._of_tensor, self.outer)
        self._shapes: dict[int, tuple[tuple[int, ...], torch.dtype]] = {}
        self.tensors: dict[TensorKey, Tensor] = {}
        self.graphs: dict[tuple[int, Batch], Graph] = {}
        self.deferred: dict[tuple[int, Batch], Deferred] = {}
        self.split = {
            (i.task.layers, i.batch) for i in rank.instructions if i.task.op is Op.BACKWARD_WEIGHT
        }
        self.batches: Batches = {}
        self.received: dict[Batch, Tensor] = {}
        self.losses: list[tuple[int, Tensor]] = []
        self.loss_scale = LossScaler(
            experiment.workload.dtype, experiment.workload.loss_scale, device
        )
        self.learning_rate = LearningRate(experiment)
        self.norm_squared = torch.zeros(1, dtype=torch.float64, device=device)
        self.ledger = Ledger(MemoryParts(**self.resident_bytes()))
        self.receptions: dict[str, Reception] = {}
        self.granted: dict[Batch, int] = {}
        self.keep_gradients = False
        self.last_gradients: dict[TensorName, Tensor] = {}

    def begin(self, batches: Batches, record: Sequence[Decision] | None = None) -> None:
        """Begin the program: nothing is left of what was before.

        Args:
            batches: input and target per step and microbatch of this replica.
            record: decisions about arrivals to repeat; None: policies decide.
        """
        self.batches = batches
        self.learning_rate.begin()
        self.losses.clear()
        self.granted.clear()
        self.ledger.restart()
        for parameters in self.parameters.values():
            parameters.restart()
        self.receptions = {
            queue.name: Reception(acceptance_of(queue, record), partial(self.groups.hear, queue))
            for queue in self.rank.program.queues
            if queue.server == self.rank.number
        }

    def begin_step(self) -> None:
        """Begin a training step of the program, on the compute stream."""
        self.norm_squared.zero_()

    def end_step(self) -> None:
        """End a step: the loss scale follows what became of its gradients."""
        if self.loss_scale.dynamic:
            self.loss_scale.update(self.gradient_norm())

    def resident_bytes(self) -> dict[str, int]:
        """Return the bytes that this rank really holds throughout, by what they are for."""
        held = self.parameters.values()
        return {
            "parameters": sum(p.resident_bytes for p in held),
            "gradients": sum(p.gradients.nbytes for p in held),
            "optimizer": sum(p.optimizer_bytes for p in held)
            + sum(outer.nbytes for outer in self.outer.values()),
            "buffers": self.coders.nbytes,
        }

    def outcome_of(self, step: Instruction) -> Outcome | None:
        """Return what arrival decided about an optimizer step; None: it is always carried out."""
        if not step.task.queue or not is_dependent(step.task):
            return None
        return self.receptions[step.task.queue].outcome_of(step.uid)

    def executed(self, instruction: Instruction) -> Instruction | None:
        """Return what an instruction was once arrival has decided; None: it had nothing to do.

        An ACCEPT was the other side of the request that it served.
        """
        if instruction.task.op is Op.ACCEPT:
            return self.rank.program.instruction(
                self.receptions[instruction.task.queue].served_by(instruction.uid)
            )
        outcome = self.outcome_of(instruction)
        is_idle = outcome is not None and not outcome.pushes
        return None if is_idle or self.lacks_work(instruction) else instruction

    def lacks_work(self, instruction: Instruction) -> bool:
        """Tell whether a pass got no microbatch, or a request for one need not be made."""
        task = instruction.task
        if not task.queue:
            return False
        if task.op in RUNS_OF_PASSES:
            return self.granted.get(instruction.batch, -1) < 0
        mine = (given for (step, _), given in self.granted.items() if step == instruction.step)
        return task.op is Op.RECV and task.tensor == WORK and any(given < 0 for given in mine)

    def data_of(self, instruction: Instruction) -> tuple[Tensor, Tensor]:
        """Return input and target of a pass."""
        step, microbatch = instruction.batch
        if instruction.task.queue:
            microbatch = self.granted[instruction.batch]
        return self.batches[step, microbatch]

    def gradient_norm(self) -> Tensor:
        """Return the norm of the whole model's gradients, 0 if the program does not sum it.

        It is a tensor of the device, so that the host need not wait for it.
        """
        norm = self.norm_squared[0].sqrt()
        scale = self.loss_scale.value
        return norm if scale is None else norm / scale

    def parameters_of(self, layers: tuple[int, int]) -> Parameters | None:
        """Return the parameters of a segment; None if it has none."""
        return self._of_layers.get(layers)

    def parameters_named(self, tensor: TensorName | None) -> Parameters | None:
        """Return the parameters that a tensor is, or holds the gradients of; None for others."""
        return None if tensor is None else self._of_tensor.get(tensor)

    def updated_by(self, task: Task) -> list[Parameters]:
        """Return the parameters that an optimizer step, a norm or a broadcast is about."""
        if task.tensor:
            named = self._of_tensor.get(task.tensor)
            return [] if named is None else [named]
        return [p for p in self.parameters.values() if p.within(task.layers)]

    def empty(self, name: TensorName, nbytes: int) -> Tensor:
        """Return a buffer for what communication brings."""
        if name.kind in (TensorKind.ACTIVATION, TensorKind.GRADIENT):
            index = name.boundary
            if index not in self._shapes:
                self._shapes[index] = boundary(self.rank.experiment, index)
            shape, dtype = self._shapes[index]
        else:
            dtype = TORCH_DTYPE[self.rank.experiment.workload.dtype]
            shape = (-(-nbytes // dtype.itemsize),)
        return torch.empty(shape, dtype=dtype, device=self.rank.device)

    def add_up(self, names: Sequence[TensorName], batch: Batch) -> Tensor:
        """Return the sum of tensors, in the first of them."""
        if not names:
            raise ValueError("its task names no tensor")
        first, *others = (self.tensors[tensor_key(name, batch)] for name in names)
        for other in others:
            first += other
        return first

    def put(self, name: TensorName, tensor: Tensor, instruction: Instruction) -> None:
        """Hold a boundary tensor that an instruction makes under its logical name."""
        key = tensor_key(name, instruction.batch)
        self.tensors[key] = tensor
        self.ledger.hold(key, tensor.nbytes, instruction.index)

    def supply(self, name: TensorName, batch: Batch, tensor: Tensor) -> None:
        """Hold a tensor that a step finds when it begins; its bytes are not counted."""
        self.tensors[name, batch] = tensor

    def release(self, instruction: Instruction) -> Freed:
        """Forget what the program says the instruction frees; the caller drops what is returned."""
        freed = Freed()
        if self.lacks_work(instruction):
            return freed
        for name in instruction.task.frees:
            key = tensor_key(name, instruction.batch)
            tensor = self.tensors.pop(key, None)
            drop = self.ledger.release(key, instruction.index)
            if tensor is not None:
                freed.tensors.append(tensor)
            if drop is not None:
                freed.drops.append(drop)
        return freed

    def forget(self) -> None:
        """Drop every boundary tensor (calibration programs free nothing)."""
        self.tensors.clear()
        self.ledger.clear()
