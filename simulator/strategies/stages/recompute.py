"""Full recomputation: of every block only the input is kept, and its forward pass runs again.

It does so, exchanges included, before the backward pass of the block (Chen et al. 2016, "Training
Deep Nets with Sublinear Memory Cost", section 4; Megatron-LM's "uniform" method with one layer a
unit). A block begins at the first layer of a stage and at every other that could start one.
"""

from __future__ import annotations

from itertools import accumulate

from simulator.strategies.stages.pieces import Pieces


class Rerun:
    """The pieces of a stage that run forward twice.

    Attributes:
        block_of: per piece the number of its block.
        again: the pieces that run again.
    """

    def __init__(self, pieces: Pieces):
        starts = [pieces.flow.layers[first].starts_block for first, _ in pieces.spans]
        self.block_of = list(accumulate([0, *map(int, starts[1:])]))
        self.again: set[int] = set()
        for piece in reversed(range(len(pieces.spans))):
            if self._runs_again(pieces, piece):
                self.again.add(piece)
        self._exchanges = pieces.exchanges

    def _runs_again(self, pieces: Pieces, piece: int) -> bool:
        """Tell whether a piece must: a segment for its graph, an exchange if its block reads it."""
        if piece not in pieces.exchanges:
            return True
        readers = pieces.flow.readers[pieces.spans[piece][1]]
        mine = [pieces.piece_of[reader] for reader in readers if reader in pieces.piece_of]
        block = self.block_of[piece]
        return any(self.block_of[other] == block and other in self.again for other in mine)

    def before(self, piece: int) -> list[int]:
        """Return the pieces that run again before the backward pass of segment `piece`.

        Those are all of its block, if it is the block's last segment, else none.
        """
        block = [p for p, number in enumerate(self.block_of) if number == self.block_of[piece]]
        if any(other > piece and other not in self._exchanges for other in block):
            return []
        return [other for other in block if other in self.again]
