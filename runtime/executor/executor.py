"""The executor: walks the instruction list of one rank, for real.

It knows operations, not strategies: `runtime.executor.operations` has one function per operation.
Compute runs in the calling thread in list order; communication is handed to its stream
when the walk reaches it. Semantics are those of `simulator.program`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from runtime.executor.faults import inject, linger
from runtime.executor.groups import Groups
from runtime.executor.ledger import Ledger
from runtime.executor.loss_scale import LossScale
from runtime.executor.operations import OPERATIONS, Graph
from runtime.executor.pacing import Pacing
from runtime.executor.parameters import Parameters, parameters_of
from runtime.executor.streams import Stopwatch, Stream, Ticket
from runtime.models.deferral import Deferred
from runtime.models.dtypes import TORCH_DTYPE
from runtime.models.segment import Segment, boundary
from runtime.progress import Progress
from simulator.experiment.experiment import Experiment
from simulator.program.instruction import Instruction
from simulator.program.operations import COMPUTE_STREAM, Op
from simulator.program.program import Program
from simulator.program.staleness import Staleness
from simulator.program.task import Task
from simulator.program.tensors import boundary_of, tensor_key
from simulator.strategies.lowering import updates_of
from simulator.strategies.stages.dataflow import Flow
from simulator.workloads.describe import describe

FAILURE_POLL_S = 0.2
CLOSE_S = 1.0


def first_line(error: BaseException) -> str:
    """What it says, or its name if it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


class ExecutionError(RuntimeError):
    """An instruction failed; the message names rank and instruction."""


class Executor:
    """One rank of a program with its model segments, streams and tensors.

    Args:
        experiment, program: what to run; `program` is validated.
        rank: of this process.
        device: where tensors live.
        groups: communicators of the program.
        progress: where others can see which instruction this rank is in.
        pace: stretches each instruction, or None (see ``run.pace``).

    Attributes:
        tensors: boundary tensors by (logical name, microbatch).
        graphs: what a backward pass starts from, by (first layer, microbatch).
        split: (layers, microbatch) whose backward is split; deferred: their weight
            gradients to come, by (first layer, microbatch).
        parameters: flat buffers by the name of their bucket.
        buffers: other resident tensors by logical name: the square of the gradients' norm.
        keep_gradients: copy each bucket's reduced gradients to `last_gradients` before a step.
        fault: (instruction label or stream, kind) to fail at or be slow in (`faults`).
        failure: the first failure on a stream; whoever waits for anything raises it.
        staleness: how old the weights were that each gradient was computed with.
        loss_scale: of the current step.
        losses: of the microbatches of the current step, on the rank that computes them.
    """

    def __init__(
        self,
        experiment: Experiment,
        program: Program,
        rank: int,
        device: torch.device,
        groups: Groups,
        progress: Progress,
        pace: Pacing | None = None,
    ):
        self.experiment, self.program, self.rank = experiment, program, rank
        self.device, self.groups, self.progress, self.pace = device, groups, progress, pace
        self.timeout_s = experiment.run.timeout_s
        # Each loss is a mean over the tokens here; the mean over those of an update is trained.
        self.loss_scale = LossScale(experiment.workload.dtype, experiment.workload.loss_scale)
        parts = experiment.parallel.batch_shares * experiment.parallel.context
        self.loss_share = 1.0 / (parts * updates_of(experiment).every)
        self.instructions = program.ranks[rank]
        place = experiment.mesh.coordinate(rank)
        passes = {i.task.layers for i in self.instructions if i.task.op is Op.FORWARD}
        self.segments = {
            layers: Segment(experiment, *layers, device, place) for layers in sorted(passes)
        }
        self.flow = Flow(describe(experiment))
        self.parameters = parameters_of(experiment, program.buckets[rank], self.segments, rank)
        self._bucket_of = {
            layers: parameters
            for parameters in self.parameters.values()
            for layers in parameters.segments
        }
        self._shapes: dict[int, tuple[tuple[int, ...], torch.dtype]] = {}
        self.tensors: dict[tuple[str, int], Tensor] = {}
        self.graphs: dict[tuple[int, int], Graph] = {}
        self.deferred: dict[tuple[int, int], Deferred] = {}
        self.split = {
            (i.task.layers, i.microbatch)
            for i in self.instructions
            if i.task.op is Op.BACKWARD_WEIGHT
        }
        self.buffers = {"norm": torch.zeros(1, dtype=torch.float64, device=device)}
        self.staleness = Staleness()
        self.batches: dict[int, tuple[Tensor, Tensor]] = {}
        self.losses: list[Tensor] = []
        self.ledger = Ledger(sum(self.resident_bytes().values()))
        names = dict.fromkeys(i.task.stream for i in self.instructions)
        self.streams = {name: Stream(name, device) for name in names if name != COMPUTE_STREAM}
        self.stopwatch = Stopwatch(device)
        count = len(self.instructions)
        self.posted, self.end = [0.0] * count, [0.0] * count
        self.keep_gradients = False
        self.last_gradients: dict[str, Tensor] = {}
        self.fault: tuple[str, str] | None = None
        self.failure: ExecutionError | None = None

    def resident_bytes(self) -> dict[str, int]:
        """What this rank really holds throughout."""
        held = self.parameters.values()
        return {
            "parameters": sum(p.resident_bytes for p in held),
            "gradients": sum(p.gradients.nbytes for p in held),
            "optimizer": sum(p.optimizer_bytes for p in held),
        }

    @property
    def loss_factor(self) -> float:
        """What the loss of a microbatch is multiplied with before its backward pass."""
        return self.loss_share * self.loss_scale.value

    def gradient_norm(self) -> float:
        """Of the whole model, if the program has computed it in this step."""
        return float(self.buffers["norm"].sqrt()) / self.loss_scale.value

    def parameters_of(self, layers: tuple[int, int]) -> Parameters | None:
        """Of a segment; None if it has none."""
        return self._bucket_of.get(layers)

    def bucket(self, name: str) -> Parameters | None:
        """That a tensor is of: ``gradients:3``, ``parameters:3``, ``parameters:3@whole``."""
        kind, _, place = name.partition(":")
        if kind not in ("gradients", "parameters"):
            return None
        return self.parameters.get(f"gradients:{place.partition('@')[0]}")

    def updated_by(self, task: Task) -> list[Parameters]:
        """What an optimizer step, or the norm before it, is about."""
        return [p for p in self.parameters.values() if p.within(task.layers)]

    def step(self, batches: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Run the program once; fills `posted` and `end` (host clock, seconds).

        Args:
            batches: input and target per microbatch of this replica.

        Raises:
            ExecutionError: an instruction failed or waited longer than the timeout.
        """
        for _ in self.walk(batches):
            pass

    def walk(self, batches: dict[int, tuple[Tensor, Tensor]]) -> Iterator[Instruction]:
        """As `step`, with a pause after every compute instruction."""
        self._begin(batches)
        if self.pace is not None:
            self.pace.begin_step()
        tickets: dict[int, Ticket] = {}
        for instruction in self.instructions:
            self.progress.enter(instruction.index)
            if instruction.task.stream == COMPUTE_STREAM:
                self._await(instruction, tickets)
                try:
                    self._execute(instruction)
                except ExecutionError:
                    raise
                except Exception as error:
                    raise self._failed(instruction, error) from error
                yield instruction
            else:
                tickets[instruction.uid] = self._queue(instruction, tickets)
        for instruction in self.instructions:
            if instruction.uid in tickets:
                self._wait_for(instruction, tickets[instruction.uid])
        self.loss_scale.update(self.gradient_norm())

    def _begin(self, batches: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Begin a step: nothing is left of the one before."""
        self.batches = batches
        self.losses.clear()
        self.buffers["norm"].zero_()
        self.ledger.restart()
        self.stopwatch.restart()
        self.staleness = Staleness()
        for parameters in self.parameters.values():
            parameters.restart()

    def empty(self, name: str, nbytes: int) -> Tensor:
        """A buffer for what communication brings."""
        kind, _, _ = name.partition(":")
        if kind in ("act", "grad"):
            index = boundary_of(name)
            if index not in self._shapes:
                self._shapes[index] = boundary(self.experiment, index)
            shape, dtype = self._shapes[index]
        else:
            dtype = TORCH_DTYPE[self.experiment.workload.dtype]
            shape = (-(-nbytes // dtype.itemsize),)
        return torch.empty(shape, dtype=dtype, device=self.device)

    def add_up(self, names: Sequence[str], microbatch: int) -> Tensor:
        """The sum of tensors, in the first of them."""
        first, *others = (self.tensors[name, microbatch] for name in names)
        for other in others:
            first += other
        return first

    def put(self, name: str, microbatch: int, tensor: Tensor, time_s: float) -> None:
        """Hold a boundary tensor under its logical name."""
        self.tensors[name, microbatch] = tensor
        self.ledger.hold((name, microbatch), tensor.nbytes, time_s)

    def release(self, instruction: Instruction) -> None:
        """Let go of what the program says the instruction frees."""
        now = time.perf_counter()
        for name in instruction.task.frees:
            key = tensor_key(name, instruction.microbatch)
            self.tensors.pop(key, None)
            bucket = self.bucket(name)
            if name.startswith("stash:"):
                self._forget_weights(instruction.task.stage, int(name.partition("@")[2]))
            elif bucket is not None and name == bucket.bucket.name:
                bucket.drop_gradients(instruction.microbatch)
            elif bucket is not None:
                bucket.drop_whole()
            self.ledger.release(key, now)

    def _forget_weights(self, stage: int, version: int) -> None:
        layers = {i.task.layers for i in self.instructions if i.task.stage == stage}
        for parameters in self.parameters.values():
            if layers & parameters.segments.keys():
                parameters.forget(version)

    def forget(self) -> None:
        """Drop every boundary tensor (calibration programs free nothing)."""
        self.tensors.clear()
        self.ledger.clear()

    def close(self) -> None:
        deadline = time.monotonic() + CLOSE_S  # of all streams together: some may hang
        for stream in self.streams.values():
            stream.close(max(deadline - time.monotonic(), 0.0))

    def _queue(self, instruction: Instruction, tickets: dict[int, Ticket]) -> Ticket:
        """Hand `instruction` to its stream; what it waits for there is other streams."""
        others = [tickets[other.uid] for other in instruction.after if other.uid in tickets]

        def work() -> None:
            try:
                for ticket in others:
                    ticket.wait(self.timeout_s)
                self._execute(instruction)
            except Exception as error:
                self.failure = self.failure or self._failed(instruction, error)
                raise

        return self.streams[instruction.task.stream].submit(work)

    def _await(self, instruction: Instruction, tickets: dict[int, Ticket]) -> None:
        for other in instruction.after:
            if other.uid in tickets:
                self._wait_for(other, tickets[other.uid])
                self.progress.enter(instruction.index)

    def _wait_for(self, instruction: Instruction, ticket: Ticket) -> None:
        self.progress.wait(instruction.index)
        deadline = time.monotonic() + self.timeout_s
        while not ticket.done.wait(min(self.timeout_s, FAILURE_POLL_S)):
            if self.failure:
                raise self.failure
            if time.monotonic() > deadline:
                late = TimeoutError(f"no answer within {self.timeout_s:g} s")
                raise self._failed(instruction, late)
        if ticket.error is not None:
            raise self.failure or self._failed(instruction, ticket.error)

    def _failed(self, instruction: Instruction, error: BaseException) -> ExecutionError:
        return ExecutionError(f"rank {self.rank}, {instruction.label}: {first_line(error)}")

    def _execute(self, instruction: Instruction) -> None:
        """Run it in the calling thread, now; fills its `posted` and `end`."""
        index, stream = instruction.index, instruction.task.stream
        begin = time.perf_counter()
        self.posted[index] = begin
        fault = self.fault[1] if self.fault and self.fault[0] in (instruction.label, stream) else ""
        if fault:
            inject(fault)
        OPERATIONS[instruction.task.op](self, instruction)
        finished = self.stopwatch.finish()
        if self.pace is not None:
            self.pace.stretch(instruction, begin)
        self.release(instruction)
        on_host = self.device.type == "cpu" or self.pace is not None
        # There giving memory back takes time, too.
        self.end[index] = time.perf_counter() if on_host else max(finished, begin)
        if fault:
            self.end[index] = linger(fault, begin)
            if self.pace is not None:
                self.pace.is_due(instruction, self.end[index])
