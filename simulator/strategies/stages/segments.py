"""Where a stage is cut: at every exchange, where one is waited for, so that gradients go out
bucket by bucket, and where blocks are recomputed, between them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from simulator.experiment.mesh import AXES
from simulator.strategies.stages.dataflow import Range
from simulator.workloads.describe import Layer


class Spread(NamedTuple):
    """Mesh axes over which gradients are sums, and over which parameters are copies."""

    sums_over: tuple[str, ...]
    copied_over: tuple[str, ...]

    @classmethod
    def of(cls, layer: Layer, wide: Collection[str]) -> Spread:
        """How the parameters of `layer` are spread over the `wide` axes, which have more than
        one rank.
        """
        sums_over, copied_over = (
            tuple(axis for axis in axes if axis in wide)
            for axes in (layer.sums_over, layer.copied_over)
        )
        return cls(sums_over, copied_over)


@dataclass(frozen=True)
class Filled:
    """What is in a bucket: the segments (ascending) and how many parameters they have."""

    segments: tuple[Range, ...]
    spread: Spread
    parameters: int


def cut(
    layers: Sequence[Layer],
    stage: Range,
    value_bytes: int,
    limit: Callable[[Spread], float],
    wide: Collection[str] = AXES,
    at_blocks: bool = False,
) -> tuple[list[Range], list[Filled]]:
    """The pieces of a stage (segments, and exchanges alone) and the buckets of its segments.

    Buckets are filled from the last layer, whose gradients come first in the backward pass,
    until they hold `limit` bytes of gradients, as in PyTorch DDP (Li et al. 2020, section
    3.2.3); layers without parameters that are left over join the segment behind them.

    Args:
        limit: bytes of a bucket of parameters that are spread like this.
        wide: mesh axes with more than one rank.
        at_blocks: no segment spans blocks.
    """
    first, last = stage
    cuts = {first, last}
    members: list[list[int]] = []  # layers of each bucket
    filling: dict[Spread, int] = {}  # buckets that are not full
    held: list[int] = []
    pending: int | None = None  # a bucket is full here: cut, if parameters follow
    current: Spread | None = None  # of the segment that is being filled
    waiting = {index for index in range(first + 1, last) if _waits(layers, index)}
    cuts |= waiting
    for index in range(last - 1, first - 1, -1):
        layer = layers[index]
        if layer.exchange is not None:
            cuts |= {index, index + 1}
        if layer.exchange is not None or index + 1 in waiting:
            pending = current = None
        if not layer.parameters:
            continue
        spread = Spread.of(layer, wide)
        if pending is not None:
            cuts.add(pending)
        elif current not in (None, spread):
            cuts.add(index + 1)
        pending, current = None, spread
        if spread not in filling:
            filling[spread] = len(members)
            members.append([])
            held.append(0)
        bucket = filling[spread]
        members[bucket].append(index)
        held[bucket] += layer.parameters * value_bytes
        if held[bucket] >= limit(spread):
            del filling[spread]
            pending = index
    if at_blocks:
        cuts |= {index for index in range(first, last) if layers[index].starts_block}
    pieces = list(pairwise(sorted(cuts)))
    bucket_of = {index: number for number, indices in enumerate(members) for index in indices}
    segments: list[dict[Range, None]] = [{} for _ in members]
    for piece in pieces:
        for index in range(*piece):
            if index in bucket_of:
                segments[bucket_of[index]][piece] = None
    buckets = [
        Filled(
            segments=tuple(segments[number]),
            spread=Spread.of(layers[indices[0]], wide),
            parameters=sum(layers[index].parameters for index in indices),
        )
        for number, indices in enumerate(members)
    ]
    return pieces, buckets


def _waits(layers: Sequence[Layer], index: int) -> bool:
    """The layer reads what an exchange further back has made: that goes on beside the layers
    between them, so these must not wait for it (unless the first of them reads it, too).
    """
    return any(
        back and layers[index - back - 1].exchange and 0 not in layers[index - back].reads
        for back in layers[index].reads
    )
