"""Layers are divided among the stages of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.dataflow import Range
from simulator.workloads.describe import Layer


def check_split(experiment: Experiment) -> None:
    """Refuse a split into another number of stages than the plan has."""
    parallel = experiment.parallel
    stages = parallel.pipeline * parallel.virtual_stages
    if parallel.split is not None and len(parallel.split) != stages:
        raise ExperimentError(
            f"parallel.split = {list(parallel.split)}: {len(parallel.split)} numbers; allowed: "
            f"one for each of pipeline × virtual_stages = {stages} stages"
        )


def partition_layers(lowered: Lowered) -> Lowered:
    """Divide the layers among stages, as ``parallel.split`` says or balanced.

    Raises:
        ExperimentError: the model has not as many blocks as the split.
    """
    parallel = lowered.experiment.parallel
    num_stages = parallel.pipeline * parallel.virtual_stages
    try:
        ranges = split_stages(lowered.layers, num_stages, parallel.split)
    except ValueError as error:
        given = parallel.split and list(parallel.split)
        raise ExperimentError(f"parallel.split = {given}: {error}") from None
    costs = stage_costs(lowered.layers, ranges, parallel.recompute == "full")
    return replace(lowered, ranges=ranges, plan=lowered.plan._replace(costs=costs))


def split_stages(
    layers: Sequence[Layer], num_stages: int, split: Sequence[int] | None = None
) -> list[Range]:
    """Return consecutive layer ranges, one a stage, that make the largest stage least costly.

    Cost is FLOPs of forward and backward, or the given seconds for `unit`. Exact, by
    dynamic programming over the places where a stage may begin, in O(stages × blocks²);
    among equals the last boundary is as low as can be, then the one before it, each over
    the best split of what precedes it.

    Args:
        layers: those of the model.
        num_stages: over the whole pipeline.
        split: blocks per stage, instead of all this.

    Raises:
        ValueError: more stages than blocks, or a split into other numbers than there are.
    """
    starts = [index for index, layer in enumerate(layers) if layer.starts_block or index == 0]
    bounds, blocks = [*starts, len(layers)], len(starts)
    if num_stages > blocks:
        raise ValueError(f"{num_stages} stages for {blocks} blocks; allowed: {blocks} or fewer")
    if split is not None:
        if len(split) != num_stages or sum(split) != blocks or min(split) < 1:
            raise ValueError(
                f"{sum(split)} blocks in {len(split)} stages; allowed: {num_stages} numbers from "
                f"1 that add up to the {blocks} blocks of the model"
            )
        return _ranges(bounds, [0, *accumulate(split)])
    if num_stages == blocks:
        return _ranges(bounds, range(blocks + 1))
    prefix = [0.0]
    for layer in layers:
        prefix.append(prefix[-1] + sum(_work(layer)))
    before = np.array([prefix[bound] for bound in bounds])  # each block
    # best[b]: least possible largest stage over the first b blocks in the stages so far.
    best = before - before[0]
    choices: list[list[int]] = []
    for stages in range(2, num_stages + 1):
        following, choice = np.full(blocks + 1, np.inf), [0] * (blocks + 1)
        for b in range(stages, blocks + 1):
            largest = np.maximum(best[stages - 1 : b], before[b] - before[stages - 1 : b])
            cut = int(largest.argmin())
            following[b], choice[b] = largest[cut], cut + stages - 1
        best = following
        choices.append(choice)
    cuts = [blocks]
    for choice in reversed(choices):
        cuts.append(choice[cuts[-1]])
    return _ranges(bounds, [0, *reversed(cuts)])


def stage_costs(
    layers: Sequence[Layer], ranges: Sequence[Range], recompute: bool = False
) -> tuple[tuple[float, float, float], ...]:
    """Return (forward, backward for inputs, for weights) of each stage, in FLOPs or seconds.

    Seconds are those of `unit`.

    Args:
        layers: those of the model.
        ranges: the layers of every stage.
        recompute: the forward pass runs again before the one for inputs, and counts with it.
    """
    costs = []
    for first, last in ranges:
        f, i, w = zip(*map(_work, layers[first:last]), strict=True)
        costs.append((sum(f), sum(i) + (sum(f) if recompute else 0.0), sum(w)))
    return tuple(costs)


def _work(layer: Layer) -> tuple[float, float, float]:
    into_input = layer.backward_input_flops + layer.recomputed_flops
    return layer.seconds or (layer.forward_flops, into_input, layer.backward_weight_flops)


def _ranges(bounds: Sequence[int], cuts: Iterable[int]) -> list[Range]:
    return [(bounds[a], bounds[b]) for a, b in pairwise(cuts)]
