"""The segments and exchanges of a stage, and what follows from where it is cut."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.strategies.stages.dataflow import Flow, Range


class Pieces:
    """The segments and exchanges of a stage, numbered in the order of the model.

    Attributes:
        spans: the layers of each.
        flow: which layer reads what.
        first, last: the range of layers of the whole stage.
        inputs, outputs: the boundaries whose tensors come into the stage, and leave it.
        piece_of: the piece that each layer is in.
        exchanges: the pieces that are one.
        regathered: those that gather their result once more before the backward pass, each with
            the first segment on the way back that reads it.
        completed: per exchange the segment whose backward pass puts the last part to the
            gradient that it sends back; where another stage does that, itself.
    """

    def __init__(self, spans: Sequence[Range], flow: Flow):
        self.spans, self.flow = list(spans), flow
        self.first, self.last = self.spans[0][0], self.spans[-1][1]
        self.inputs, self.outputs = flow.crossing(self.first), flow.crossing(self.last)
        self.piece_of = {layer: p for p, span in enumerate(self.spans) for layer in range(*span)}
        hows = [flow.layers[layer].exchange for layer, _ in self.spans]
        self.exchanges = {piece for piece, how in enumerate(hows) if how is not None}
        self.regathered = {
            piece: max(
                (self.piece_of.get(reader, piece) for reader in flow.readers[self.spans[piece][1]]),
                default=piece,
            )
            for piece, how in enumerate(hows)
            if how is not None and how.regathered
        }
        self.completed: dict[int, int] = {}
        for piece in sorted(self.exchanges, reverse=True):
            readers = flow.readers[self.spans[piece][1]]
            parts = [self.piece_of[reader] for reader in readers if reader in self.piece_of]
            self.completed[piece] = min((self.completed.get(p, p) for p in parts), default=piece)

    def users(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Return, per boundary, the pieces that read it, and those that need it on the way back."""
        readers: dict[int, list[int]] = {}
        keepers: dict[int, list[int]] = {}
        flow = self.flow
        for piece, (first, last) in enumerate(self.spans):
            exchange = flow.layers[first].exchange
            if exchange is not None:
                source = flow.source(flow.entry(first))
                if exchange.forward is not None:
                    readers.setdefault(source, []).append(piece)
                if exchange.regathered:
                    keepers.setdefault(source, []).append(piece)
                continue
            exported = set(flow.outputs(first, last))
            inner = [boundary for boundary in range(first + 1, last) if boundary in exported]
            for boundary in [*flow.inputs(first, last), *inner]:
                source = flow.source(boundary)
                readers.setdefault(source, []).append(piece)
                if flow.kept(boundary, first, last):
                    keepers.setdefault(source, []).append(piece)
        return readers, keepers

    def settled(self, readers: Sequence[int]) -> int:
        """Return the piece at whose end all `readers` have ended.

        An exchange goes on beside the segments behind it, up to the first that reads what it
        makes.
        """
        last = readers[-1]
        for piece in self.exchanges.intersection(readers[:-1]):
            made = self.flow.source(self.spans[piece][1])
            for later in range(piece + 1, len(self.spans)):
                inputs = [] if later in self.exchanges else self.flow.inputs(*self.spans[later])
                if made in map(self.flow.source, inputs):
                    last = max(last, later)
                    break
        return last

    def defers(self, piece: int, source: int) -> bool:
        """Tell whether a weight gradient of `piece` needs the tensor: it is multiplied with it."""
        layers = self.flow.layers
        return any(
            layers[index].defers_input
            and self.flow.source(index - layers[index].reads[0]) == source
            for index in range(*self.spans[piece])
        )
