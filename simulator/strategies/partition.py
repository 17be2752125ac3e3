"""Which layers belong to which stage, and where a stage is cut into segments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from simulator.workloads import Layer

Range = tuple[int, int]


def split_stages(layers: Sequence[Layer], num_stages: int) -> list[Range]:
    """Consecutive layer ranges, one a stage, that minimise the cost of the largest stage.

    Exact, by dynamic programming over the places where a stage may begin; among equals
    the first (lowest) boundaries win. Cost is FLOPs of forward and backward, or the given
    seconds for `unit`.

    Raises:
        ValueError: more stages than blocks.
    """
    starts = [index for index, layer in enumerate(layers) if layer.starts_block or index == 0]
    if num_stages > len(starts):
        raise ValueError(f"{num_stages} stages for {len(starts)} blocks")
    bounds = [*starts, len(layers)]
    prefix = [0.0]
    for layer in layers:
        prefix.append(prefix[-1] + (sum(layer.seconds) if layer.seconds else layer.flops))

    def cost(first: int, last: int) -> float:
        return prefix[bounds[last]] - prefix[bounds[first]]

    blocks = len(starts)
    # best[b]: least possible largest stage over the first b blocks in the stages so far.
    best = [cost(0, b) if b else float("inf") for b in range(blocks + 1)]
    choices: list[list[int]] = []
    for _ in range(num_stages - 1):
        following = [float("inf")] * (blocks + 1)
        choice = [0] * (blocks + 1)
        for b in range(1, blocks + 1):
            for cut in range(1, b):
                candidate = max(best[cut], cost(cut, b))
                if candidate < following[b]:
                    following[b], choice[b] = candidate, cut
        best = following
        choices.append(choice)
    cuts = [blocks]
    for choice in reversed(choices):
        cuts.append(choice[cuts[-1]])
    cuts.append(0)
    cuts.reverse()
    return [(bounds[a], bounds[b]) for a, b in pairwise(cuts)]


def split_buckets(
    layers: Sequence[Layer], stage: Range, bucket_bytes: float, value_bytes: int
) -> list[Range]:
    """Cut a stage into segments of at least `bucket_bytes` of gradients each.

    Filled from the last layer, whose gradients come first in the backward pass, as in
    PyTorch DDP (Li et al. 2020, section 3.2.3); what is left over joins the first segment.
    """
    first, last = stage
    segments: list[Range] = []
    end, held = last, 0
    for index in range(last - 1, first - 1, -1):
        held += layers[index].parameters * value_bytes
        if held >= bucket_bytes:
            segments.append((index, end))
            end, held = index, 0
    if end > first:
        if held == 0 and segments:  # no parameters left over: nothing to send for them
            segments[-1] = (first, segments[-1][1])
        else:
            segments.append((first, end))
    return segments[::-1]
