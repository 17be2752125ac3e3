"""One (virtual) stage as a rank of the pipeline sees it: the tasks of its passes.

Tasks are made once and shared by all microbatches. Which activations a task frees is said by
`simulator.strategies.stages.lifetimes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import final

from simulator.program.operations import FORWARDS, IN_PLACE, INPUT_BACKWARDS, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import (
    Tensor,
    TensorName,
    activation,
    deferred_tensor,
    gradient,
    saved_tensor,
)
from simulator.strategies.stages.dataflow import deferred_bytes, saved_bytes
from simulator.strategies.stages.lifetimes import lifetimes
from simulator.strategies.stages.pieces import Pieces
from simulator.strategies.stages.recompute import Rerun


@final
class Stage:
    """The tasks of stage `index` on one rank.

    Attributes:
        pieces: its segments and exchanges.
        first, last: the range of its layers.
        previous_rank, next_rank: global ranks of its neighbours, None at the ends of the model.
        groups: per mesh axis the ranks that this rank exchanges with.
        loss_weight: see `Task.loss_weight`.
        receives, sends: its inputs come from, its outputs go to, another rank.
        rerun: what runs again before the backward pass; None: nothing.
    """

    def __init__(
        self,
        index: int,
        pieces: Pieces,
        previous_rank: int | None,
        next_rank: int | None,
        groups: Mapping[str, tuple[int, ...]],
        rank: int,
        rerun: Rerun | None = None,
        loss_weight: float = 1.0,
    ):
        self.index, self.pieces, self.flow, self.rerun = index, pieces, pieces.flow, rerun
        self.previous_rank, self.next_rank, self.groups = previous_rank, next_rank, groups
        self.first, self.last, self.loss_weight = pieces.first, pieces.last, loss_weight
        self.receives = previous_rank not in (None, rank)
        self.sends = next_rank not in (None, rank)
        self._lifetimes = lifetimes(pieces, self.sends, rerun)
        self._tasks: dict[tuple[str, int], Task] = {}

    def _gradients(self, boundary: int, after: int) -> list[TensorName]:
        """Return the parts of the gradient at `boundary` that come from layers `after` and later.

        Where they come from another rank they are one message.
        """
        if self.sends and boundary in self.pieces.outputs:
            return [gradient(boundary)]
        return self.flow.gradients(boundary, after)

    def starts(self, op: Op) -> list[TensorName]:
        """Return the tensors that a pass starts from."""
        if op is Op.FORWARD:
            return [self.flow.activation(boundary) for boundary in self.pieces.inputs]
        if op not in INPUT_BACKWARDS:
            return []
        return [n for b in self.pieces.outputs for n in self._gradients(b, self.last)]

    def ends(self, op: Op) -> list[TensorName]:
        """Return the tensors that a pass leaves to a stage of the same rank."""
        if op is Op.FORWARD:
            return [] if self.sends else [self.flow.activation(b) for b in self.pieces.outputs]
        if op in INPUT_BACKWARDS and not self.receives:
            return [name for b in self.pieces.inputs for name in self.flow.gradients(b)]
        return []

    def sent_before(self, op: Op) -> list[tuple[int, TensorName]]:
        """Return what the forward pass sends, by which message, and pass `op` frees."""
        if op is Op.FORWARD or not self.sends or len(self.pieces.outputs) < 2:
            return []
        segments = set(range(len(self.pieces.spans))) - self.pieces.exchanges
        freed = {name for piece in segments for name in self.compute(op, piece).frees}
        names = map(self.flow.activation, self.pieces.outputs)
        return [(place, name) for place, name in enumerate(names) if name in freed]

    def starts_from_messages(self, op: Op) -> bool:
        """Tell whether what a pass starts from comes from another rank."""
        return self.receives if op is Op.FORWARD else self.sends and op in INPUT_BACKWARDS

    def compute(self, op: Op, piece: int) -> Task:
        """Return the task of pass `op` through a segment."""
        return self._once((op.value, piece), lambda: self._compute(op, piece))

    def _compute(self, op: Op, piece: int) -> Task:
        first, last = self.pieces.spans[piece]
        flow, layers = self.flow, self.flow.layers
        saved = Tensor(saved_tensor(first), saved_bytes(flow, first, last))
        deferred = Tensor(deferred_tensor(first), deferred_bytes(flow, first, last))
        allocates: list[Tensor] = []
        frees: list[TensorName] = []
        reads: list[TensorName] = []
        outputs = flow.outputs(first, last)
        if op in FORWARDS:
            reads = [flow.activation(b) for b in flow.inputs(first, last)]
            made = outputs
            if op is Op.RECOMPUTE:
                made = [b for b in outputs if b in self._lifetimes.remade]
            # The pass that a backward pass follows keeps a graph: the last one.
            allocates = [saved] if op is Op.RECOMPUTE or self.rerun is None else []
            allocates += [Tensor(activation(b), layers[b - 1].output_bytes) for b in made]
        elif op in INPUT_BACKWARDS:
            reads = [n for b in outputs if flow.differentiable(b) for n in self._gradients(b, last)]
            frees = [saved.name, *reads]
            allocates = [
                Tensor(gradient(b), layers[b - 1].output_bytes)
                for b in flow.inputs(first, last)
                if flow.differentiable(b) and self._begins_gradient(b, piece)
            ]
            if op is Op.BACKWARD_INPUT:
                allocates.append(deferred)
            # What is added to must have come.
            reads += [gradient(b) for b in flow.inputs(first, last) if b in self.pieces.outputs]
            reads += [
                flow.activation(b)
                for b in flow.inputs(first, last)
                if flow.regathered(b) and flow.kept(b, first, last)
            ]
        elif op is Op.BACKWARD_WEIGHT:
            frees = [deferred.name]
        return Task(
            op=op,
            stage=self.index,
            layers=(first, last),
            segment=piece if len(self.pieces.spans) > 1 else -1,
            sources=tuple(reads),
            allocates=tuple(allocates),
            frees=(*frees, *self._lifetimes.of(op, piece)),
            loss_weight=self.loss_weight if op in FORWARDS else 1.0,
        )

    def _begins_gradient(self, boundary: int, piece: int) -> bool:
        """Tell whether this piece is the first in the backward pass to put a gradient there."""
        if boundary in self.pieces.outputs:
            return False  # a later stage did
        stage = range(self.first, self.last)
        reading = [
            index
            for index in self.flow.readers[boundary]
            if index in stage and self.flow.layers[index].exchange is None
        ]
        first, last = self.pieces.spans[piece]
        return first <= reading[-1] < last

    def exchange(self, piece: int, forwards: bool) -> Task | None:
        """Return the collective of an exchange on the way forward or back, if there is one."""
        layer, _ = self.pieces.spans[piece]
        how = self.flow.layers[layer].exchange
        assert how is not None
        op = how.forward if forwards else how.backward
        if op is None or not (forwards or self.flow.layers[layer].differentiable):
            return None
        key = ("EXCHANGE", 2 * piece + forwards)
        return self._once(key, lambda: self._exchange(piece, op, forwards))

    def recompute(self, piece: int) -> list[Task]:
        """Return what runs again before the backward pass of a segment."""
        if self.rerun is None:
            return []
        again = (self._again(other) for other in self.rerun.before(piece))
        return [task for task in again if task is not None]

    def _again(self, piece: int) -> Task | None:
        if piece not in self.pieces.exchanges:
            return self.compute(Op.RECOMPUTE, piece)
        task = self.exchange(piece, forwards=True)
        if task is None:
            return None
        made = self.flow.source(self.pieces.spans[piece][1])
        assert made in self._lifetimes.remade  # summed in place, an input would be summed twice
        frees = self._lifetimes.of(Op.RECOMPUTE, piece)
        again = replace(task, mnemonic=f"{task.op.value}_R", frees=frees)
        return self._once(("AGAIN", piece), lambda: again)

    def regather(self, piece: int) -> Task:
        """Return the task that gathers for the backward pass what `piece` gathered before."""
        again = self.exchange(piece, forwards=True)
        assert again is not None
        frees = tuple(self._lifetimes.dropped.get(piece, ()))
        make = replace(again, mnemonic=f"{again.op.value}_AGAIN", frees=frees)
        return self._once(("AGAIN", piece), lambda: make)

    def _exchange(self, piece: int, op: Op, forwards: bool) -> Task:
        layer, _ = self.pieces.spans[piece]
        flow, layers = self.flow, self.flow.layers
        how = layers[layer].exchange
        assert how is not None
        entry = flow.entry(layer)
        before, after = layers[entry - 1].output_bytes, layers[layer].output_bytes
        if forwards:
            sources = [flow.activation(entry)]
            result = Tensor(activation(layer + 1), after)
            frees = self._lifetimes.of(Op.FORWARD, piece)
        else:
            sources = self._gradients(layer + 1, layer + 1)
            result = Tensor(flow.returned(layer)[0], before)
            frees = tuple(sources[1:] if op in IN_PLACE else sources)
        return Task(
            op=op,
            stage=self.index,
            layers=(layer, layer + 1),
            segment=piece,
            mnemonic=f"{op.value}_{'F' if forwards else 'B'}",
            stream=Stream.along(how.axis),
            group=self.groups[how.axis],
            tensor=sources[0],
            sources=tuple(sources),
            nbytes=max(before, after),
            reduction=how.reduction,
            allocates=() if op in IN_PLACE else (result,),
            frees=frees,
        )

    def receive(self, forwards: bool) -> list[Task]:
        """Return the receives of the messages that a pass starts from."""
        arriving = self.pieces.inputs if forwards else self.pieces.outputs
        return [self._messages(Op.RECV, forwards, place) for place in range(len(arriving))]

    def send(self, forwards: bool) -> list[Task]:
        """Return the sends of the results of a pass, if another rank is next."""
        if not (self.sends if forwards else self.receives):
            return []
        leaving = self.pieces.outputs if forwards else self.pieces.inputs
        return [self._messages(Op.SEND, forwards, place) for place in range(len(leaving))]

    def _messages(self, op: Op, forwards: bool, place: int) -> Task:
        key = op.value, 2 * place + forwards
        return self._once(key, lambda: self._message(op, forwards, place))

    def _message(self, op: Op, forwards: bool, place: int) -> Task:
        sending = op is Op.SEND
        other = self.next_rank if forwards == sending else self.previous_rank
        peer = -1 if other is None else other
        boundary = (self.pieces.outputs if forwards == sending else self.pieces.inputs)[place]
        name = activation(boundary) if forwards else gradient(boundary)
        nbytes = self.flow.layers[boundary - 1].output_bytes
        sources = (name,) if forwards else tuple(self.flow.gradients(boundary))
        task = Task(
            op=op,
            stage=self.index,
            segment=place if place else -1,
            mnemonic=f"{op.value}_{'F' if forwards else 'B'}",
            stream=Stream.send(peer) if sending else Stream.recv(peer),
            peer=peer,
            tensor=name,
            nbytes=nbytes,
        )
        if not sending:
            return replace(task, allocates=(Tensor(name, nbytes),))
        frees = sources
        if forwards:
            sent = self.flow.activation(boundary)
            frees = (sent,) if sent in self._lifetimes.by_send else ()
        return replace(task, sources=sources, frees=frees)

    def _once(self, key: tuple[str, int], make: Callable[[], Task]) -> Task:
        if key not in self._tasks:
            self._tasks[key] = make()
        return self._tasks[key]
