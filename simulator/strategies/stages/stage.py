"""One (virtual) stage as a rank of the pipeline sees it: the tasks of its passes.

Tasks are made once and shared by all microbatches. Which tensors a task allocates and frees
follows from who reads them: an activation lives until its last reader in the forward pass,
or until the backward pass of the first segment that keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from simulator.program.operations import INPUT_BACKWARDS, Op
from simulator.program.task import Task
from simulator.program.tensors import Tensor, activation, gradient
from simulator.strategies.stages.dataflow import IN_PLACE, Flow, Range, deferred_bytes, saved_bytes


class Stage:
    """Tasks of stage `index`.

    Attributes:
        pieces: its segments and exchanges, as layer ranges in order.
        previous_rank, next_rank: global ranks of its neighbours, None at the ends of the model.
        groups: per mesh axis the ranks that this rank exchanges with.
        piece_of: the piece that each layer is in.
        exchanges: pieces that are one.
        again: those that gather their result once more before the backward pass.
        completed: per exchange the segment whose backward pass puts the last part to the
            gradient that it sends back; where another stage does that, itself.
    """

    def __init__(
        self,
        index: int,
        pieces: Sequence[Range],
        flow: Flow,
        previous_rank: int | None,
        next_rank: int | None,
        groups: Mapping[str, tuple[int, ...]],
        rank: int,
    ):
        self.index, self.pieces, self.flow = index, list(pieces), flow
        self.previous_rank, self.next_rank, self.groups = previous_rank, next_rank, groups
        self.first, self.last = pieces[0][0], pieces[-1][1]
        self.receives = previous_rank not in (None, rank)
        self.sends = next_rank not in (None, rank)
        self.exchanges = {
            piece
            for piece, (layer, _) in enumerate(self.pieces)
            if flow.layers[layer].exchange is not None
        }
        self.again = {
            piece
            for piece, (layer, _) in enumerate(self.pieces)
            if (how := flow.layers[layer].exchange) is not None and how.regathered
        }
        self.completed: dict[int, int] = {}
        self.piece_of = {layer: p for p, span in enumerate(self.pieces) for layer in range(*span)}
        for piece in sorted(self.exchanges, reverse=True):
            readers = flow.readers[self.pieces[piece][1]]
            parts = [self.piece_of[reader] for reader in readers if reader in self.piece_of]
            self.completed[piece] = min((self.completed.get(p, p) for p in parts), default=piece)
        self._tasks: dict[tuple[str, int], Task] = {}
        self._follow_activations()

    # Who holds what --------------------------------------------------------------------

    def _follow_activations(self) -> None:
        """Note in which task each activation that is read here is freed."""
        self.freed: dict[tuple[Op, int], list[str]] = {}
        self.dropped: dict[int, list[str]] = {}  # when it has been gathered again
        self.by_send: list[str] = []  # what nobody here needs once it has been sent
        readers, keepers = self._users()
        for source in sorted(readers.keys() | keepers.keys()):
            self._follow(source, readers.get(source, []), keepers.get(source, []))
        if self.sends and self.flow.source(self.last) not in readers:
            self.by_send.append(self.flow.activation(self.last))

    def _users(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Per boundary the pieces that read it, and those whose backward passes need it."""
        readers: dict[int, list[int]] = {}
        keepers: dict[int, list[int]] = {}
        for piece, (first, last) in enumerate(self.pieces):
            exchange = self.flow.layers[first].exchange
            if exchange is not None:
                source = self.flow.source(self.flow.entry(first))
                if exchange.forward is not None:
                    readers.setdefault(source, []).append(piece)
                if exchange.regathered:
                    keepers.setdefault(source, []).append(piece)
                continue
            inner = range(first + 1, last)
            inputs = self.flow.inputs(first, last)
            exported = set(self.flow.outputs(first, last))
            for boundary in [*inputs, *(b for b in inner if b in exported)]:
                source = self.flow.source(boundary)
                readers.setdefault(source, []).append(piece)
                if self.flow.kept(boundary, first, last):
                    keepers.setdefault(source, []).append(piece)
        return readers, keepers

    def _follow(self, source: int, readers: list[int], keepers: list[int]) -> None:
        """Note where the activation at `source` is freed."""
        name = activation(source)
        if not keepers or self.flow.gathered_again(source):
            self._free(Op.FORWARD, self._settled(readers), name)
        if keepers:
            self._free_backwards(name, source, keepers)

    def _settled(self, readers: list[int]) -> int:
        """The piece at whose end all `readers` have ended: an exchange goes on beside the
        segments behind it, up to the first that reads what it makes.
        """
        last = readers[-1]
        for piece in self.exchanges.intersection(readers[:-1]):
            made = self.flow.source(self.pieces[piece][1])
            for later in range(piece + 1, len(self.pieces)):
                inputs = [] if later in self.exchanges else self.flow.inputs(*self.pieces[later])
                if made in map(self.flow.source, inputs):
                    last = max(last, later)
                    break
        return last

    def _free(self, op: Op, piece: int, name: str) -> None:
        self.freed.setdefault((op, piece), []).append(name)

    def _free_backwards(self, name: str, source: int, keepers: list[int]) -> None:
        """After the last use: of the lowest piece, and where weight gradients are deferred,
        of the lowest that defers those that need it. An exchange uses it to gather it again.
        """
        if keepers[0] in self.again:
            self.dropped.setdefault(keepers[0], []).append(name)
            return
        self._free(Op.BACKWARD, keepers[0], name)
        deferring = [piece for piece in keepers if self._defers(piece, source)]
        if deferring:
            self._free(Op.BACKWARD_WEIGHT, deferring[0], name)
        else:
            self._free(Op.BACKWARD_INPUT, keepers[0], name)

    def _defers(self, piece: int, source: int) -> bool:
        """A layer of `piece` multiplies with this tensor, so its weight gradient needs it."""
        layers = self.flow.layers
        return any(
            layers[index].defers_input
            and self.flow.source(index - layers[index].reads[0]) == source
            for index in range(*self.pieces[piece])
        )

    def _gradients(self, boundary: int, after: int) -> list[str]:
        """The parts of the gradient at `boundary` that come from layers `after` and later;
        one message, where it comes from another rank.
        """
        if boundary == self.last and self.sends:
            return [gradient(boundary)]
        return self.flow.gradients(boundary, after)

    def starts(self, op: Op) -> list[str]:
        """What a pass starts from."""
        if op is Op.FORWARD:
            return [self.flow.activation(self.first)] if self.first else []
        return self._gradients(self.last, self.last) if op in INPUT_BACKWARDS else []

    def ends(self, op: Op) -> list[str]:
        """What a pass leaves to a stage of the same rank."""
        if op is Op.FORWARD:
            return [] if self.sends else [self.flow.activation(self.last)]
        if op in INPUT_BACKWARDS and self.first and not self.receives:
            return self.flow.gradients(self.first)
        return []

    # Tasks -----------------------------------------------------------------------------

    def compute(self, op: Op, piece: int) -> Task:
        """The pass `op` through a segment."""
        return self._once((op.value, piece), lambda: self._compute(op, piece))

    def _compute(self, op: Op, piece: int) -> Task:
        first, last = self.pieces[piece]
        flow, layers = self.flow, self.flow.layers
        saved = Tensor(f"saved:{first}", saved_bytes(flow, first, last))
        deferred = Tensor(f"deferred:{first}", deferred_bytes(flow, first, last))
        allocates: list[Tensor] = []
        frees: list[str] = []
        reads: list[str] = []
        outputs = flow.outputs(first, last)
        if op is Op.FORWARD:
            reads = [flow.activation(b) for b in flow.inputs(first, last)]
            allocates = [saved]
            allocates += [Tensor(activation(b), layers[b - 1].output_bytes) for b in outputs]
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
            reads += [
                flow.activation(b)
                for b in flow.inputs(first, last)
                if flow.gathered_again(b) and flow.kept(b, first, last)
            ]
        elif op is Op.BACKWARD_WEIGHT:
            frees = [deferred.name]
        return Task(
            op=op,
            stage=self.index,
            layers=(first, last),
            segment=piece if len(self.pieces) > 1 else -1,
            sources=tuple(reads),
            allocates=tuple(allocates),
            frees=(*frees, *self.freed.get((op, piece), ())),
        )

    def _begins_gradient(self, boundary: int, piece: int) -> bool:
        """This piece is the first in the backward pass to put a gradient there."""
        stage = range(self.first, self.last)
        reading = [
            index
            for index in self.flow.readers[boundary]
            if index in stage and self.flow.layers[index].exchange is None
        ]
        first, last = self.pieces[piece]
        return first <= reading[-1] < last

    def exchange(self, piece: int, forwards: bool) -> Task | None:
        """The collective on the way forward or back, if there is one."""
        layer, _ = self.pieces[piece]
        how = self.flow.layers[layer].exchange
        assert how is not None
        op = how.forward if forwards else how.backward
        if op is None or not (forwards or self.flow.layers[layer].differentiable):
            return None
        key = ("EXCHANGE", 2 * piece + forwards)
        return self._once(key, lambda: self._exchange(piece, op, forwards))

    def recompute(self, piece: int) -> list[Task]:
        """What is run again before the backward pass of a segment: nothing."""
        return []

    def gather_again(self, piece: int) -> Task:
        """What `piece` gathered on the way forward, for the backward pass."""
        again = self.exchange(piece, forwards=True)
        assert again is not None
        frees = tuple(self.dropped.get(piece, ()))
        make = replace(again, mnemonic=f"{again.op.value}_AGAIN", frees=frees)
        return self._once(("AGAIN", piece), lambda: make)

    def _exchange(self, piece: int, op: Op, forwards: bool) -> Task:
        layer, _ = self.pieces[piece]
        flow, layers = self.flow, self.flow.layers
        how = layers[layer].exchange
        assert how is not None
        entry = flow.entry(layer)
        before, after = layers[entry - 1].output_bytes, layers[layer].output_bytes
        if forwards:
            sources = [flow.activation(entry)]
            result = Tensor(activation(layer + 1), after)
            frees = tuple(self.freed.get((Op.FORWARD, piece), ()))
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
            stream=how.axis,
            group=self.groups[how.axis],
            tensor=sources[0],
            sources=tuple(sources),
            nbytes=max(before, after),
            reduction=how.reduction,
            allocates=() if op in IN_PLACE else (result,),
            frees=frees,
        )

    def receive(self, forwards: bool) -> Task:
        """The message that a pass starts from."""
        return self._once(("RECV", int(forwards)), lambda: self._message(Op.RECV, forwards))

    def send(self, forwards: bool) -> Task | None:
        """The message that hands on the result of a pass, if another rank is next."""
        if not (self.sends if forwards else self.receives):
            return None
        return self._once(("SEND", int(forwards)), lambda: self._message(Op.SEND, forwards))

    def _message(self, op: Op, forwards: bool) -> Task:
        sending = op is Op.SEND
        peer = self.next_rank if forwards == sending else self.previous_rank
        boundary = self.last if forwards == sending else self.first
        name = activation(boundary) if forwards else gradient(boundary)
        nbytes = self.flow.layers[boundary - 1].output_bytes
        sources = (name,) if forwards else tuple(self.flow.gradients(boundary))
        task = Task(
            op=op,
            stage=self.index,
            mnemonic=f"{op.value}_{'F' if forwards else 'B'}",
            stream=f"{op.value.lower()}:{peer}",
            peer=-1 if peer is None else peer,
            tensor=name,
            nbytes=nbytes,
        )
        if not sending:
            return replace(task, allocates=(Tensor(name, nbytes),))
        frees = tuple(self.by_send) if forwards else sources
        return replace(task, sources=sources, frees=frees)

    def _once(self, key: tuple[str, int], make: Callable[[], Task]) -> Task:
        if key not in self._tasks:
            self._tasks[key] = make()
        return self._tasks[key]
