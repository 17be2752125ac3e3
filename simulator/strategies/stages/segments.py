"""A stage is cut into segments: at every exchange, and where a bucket of gradients is full.

It is also cut where an exchange is waited for and, where blocks are recomputed, between them.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf

from simulator.experiment.mesh import AXES
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.bucket_contents import BucketContents, GradientAxes
from simulator.strategies.stages.dataflow import Range
from simulator.workloads.layer import Layer


def segment_stages(lowered: Lowered) -> Lowered:
    """Cut every stage into segments; only gradients that travel are cut into buckets."""
    experiment, mesh = lowered.experiment, lowered.mesh
    bucket_bytes = experiment.parallel.bucket_mb * 1e6

    def limit(axes: GradientAxes) -> float:
        if axes.tied:  # nothing else is in it
            return inf
        travels = experiment.parallel.has_servers or len(mesh.group(0, *axes.sums_over)) > 1
        return bucket_bytes if travels else inf

    at_blocks = experiment.parallel.recompute == "full"
    cuts = [
        split_into_segments(
            lowered.layers, stage, experiment.workload.dtype_bytes, limit, mesh.wide, at_blocks
        )
        for stage in lowered.ranges
    ]
    return replace(
        lowered,
        pieces=[pieces for pieces, _ in cuts],
        contents=[contents for _, contents in cuts],
    )


def split_into_segments(
    layers: Sequence[Layer],
    stage: Range,
    value_bytes: int,
    limit: Callable[[GradientAxes], float],
    wide: Collection[str] = AXES,
    at_blocks: bool = False,
) -> tuple[list[Range], list[BucketContents]]:
    """Return the pieces of a stage (segments, and exchanges alone) and its buckets.

    Args:
        layers: those of the model.
        stage: the range of them that the stage has.
        value_bytes: size of a gradient of one parameter.
        limit: bytes that fill a bucket of parameters with these axes.
        wide: the mesh axes with more than one rank.
        at_blocks: no segment spans blocks.
    """
    fillings = fill_buckets(layers, stage, value_bytes, limit, wide)
    cuts = set(stage) | exchange_cuts(layers, stage) | bucket_cuts(layers, stage, fillings)
    if at_blocks:
        cuts |= {index for index in range(*stage) if layers[index].starts_block}
    pieces = list(pairwise(sorted(cuts)))
    return pieces, [filling.contents(layers, pieces) for filling in fillings]


@dataclass
class Filling:
    """A bucket while it is filled, from the last layer to the first.

    Attributes:
        axes: of all its parameters.
        members: its layers, in descending order.
        nbytes: of their gradients.
        full: it has reached its limit with the last of its members.
    """

    axes: GradientAxes
    members: list[int] = field(default_factory=list)
    nbytes: int = 0
    full: bool = False

    def contents(self, layers: Sequence[Layer], pieces: Sequence[Range]) -> BucketContents:
        """Return what is in the bucket, by the pieces that its layers lie in."""
        starts = [first for first, _ in pieces]
        numbers = {bisect(starts, member) - 1 for member in self.members}
        segments = [pieces[number] for number in sorted(numbers)]
        parameters = sum(layers[member].parameters for member in self.members)
        return BucketContents(tuple(segments), self.axes, parameters)


def fill_buckets(
    layers: Sequence[Layer],
    stage: Range,
    value_bytes: int,
    limit: Callable[[GradientAxes], float],
    wide: Collection[str],
) -> list[Filling]:
    """Return the buckets of a stage, filled from the last layer to the first.

    The gradients of the last layer come first in the backward pass; a bucket takes layers with
    equal axes until it holds `limit` bytes, as in PyTorch DDP (Li et al. 2020, section 3.2.3).
    """
    fillings: list[Filling] = []
    open_: dict[GradientAxes, Filling] = {}
    for index in reversed(range(*stage)):
        layer = layers[index]
        if not layer.parameters and not layer.tied:
            continue
        axes = GradientAxes.of_layer(layer, wide)
        if axes not in open_:
            open_[axes] = Filling(axes)
            fillings.append(open_[axes])
        filling = open_[axes]
        filling.members.append(index)
        filling.nbytes += layer.parameters * value_bytes
        if filling.nbytes >= limit(axes):
            filling.full = True
            del open_[axes]
    return fillings


def exchange_cuts(layers: Sequence[Layer], stage: Range) -> set[int]:
    """Return the boundaries before and behind every exchange, and before layers that wait."""
    first, last = stage
    exchanges = [index for index in range(first, last) if layers[index].exchange is not None]
    waiting = {index for index in range(first + 1, last) if _waits(layers, index)}
    return waiting | {cut for index in exchanges for cut in (index, index + 1)}


def bucket_cuts(layers: Sequence[Layer], stage: Range, fillings: Sequence[Filling]) -> set[int]:
    """Return the boundaries between segments that are of different buckets.

    A full bucket is cut off if parameters follow in the backward pass; layers without parameters
    that are left over join the segment behind them.
    """
    first, last = stage
    filling_of = {member: filling for filling in fillings for member in filling.members}
    cuts: set[int] = set()
    full: int | None = None  # a bucket is full here, and there is no cut yet
    current: GradientAxes | None = None  # of the segment that ends here
    for index in reversed(range(first, last)):
        waited_for = index + 1 < last and _waits(layers, index + 1)
        if layers[index].exchange is not None or waited_for:
            full = current = None
        if index not in filling_of:
            continue
        filling = filling_of[index]
        if full is not None:
            cuts.add(full)
        elif current not in (None, filling.axes):
            cuts.add(index + 1)
        current = filling.axes
        full = index if filling.full and filling.members[-1] == index else None
    return cuts


def _waits(layers: Sequence[Layer], index: int) -> bool:
    """Tell whether a layer reads what an exchange further back has made.

    That exchange runs in parallel with the layers in between, so they need a segment of their
    own (unless the first of them reads its result, too).
    """
    return any(
        back and layers[index - back - 1].exchange and 0 not in layers[index - back].reads
        for back in layers[index].reads
    )
