"""Every rank gets the stages that the schedule's placement gives to its pipeline rank."""

from __future__ import annotations

from dataclasses import replace

from simulator.experiment.mesh import AXES
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.pieces import Pieces
from simulator.strategies.stages.recompute import Rerun
from simulator.strategies.stages.stage import Stage


def assign_stages(lowered: Lowered) -> Lowered:
    """Give every rank its stages, with the ranks of the stages before and behind.

    Raises:
        ExperimentError: a rank would have the same tensor in two of its stages.
    """
    mesh, placement = lowered.mesh, lowered.placement
    reruns = lowered.experiment.parallel.recompute == "full"
    pieces = [Pieces(spans, lowered.flow) for spans in lowered.pieces]
    crossing, virtual = max(len(cut.inputs) for cut in pieces), lowered.plan.virtual_stages
    if crossing > 1 and virtual > 1:
        raise ExperimentError(
            f"parallel.virtual_stages = {virtual}: {crossing} tensors of this model cross from one "
            "stage to the next, and a rank would have one of them twice; allowed: 1"
        )
    weight = loss_weight(lowered)
    rerun = [Rerun(cut) if reruns else None for cut in pieces]
    stages: dict[int, dict[int, Stage]] = {}
    for rank in lowered.ranks:
        pipeline = mesh.group(rank, "pipeline")
        groups = {axis: mesh.group(rank, axis) for axis in AXES}
        mine = pipeline.index(rank)
        stages[rank] = {
            index: Stage(
                index=index,
                pieces=cut,
                previous_rank=pipeline[placement[index - 1]] if index else None,
                next_rank=pipeline[placement[index + 1]] if index + 1 < len(pieces) else None,
                groups=groups,
                rank=rank,
                rerun=rerun[index],
                loss_weight=weight,
            )
            for index, cut in enumerate(pieces)
            if placement[index] == mine
        }
    return replace(lowered, stages=stages)


def loss_weight(lowered: Lowered) -> float:
    """Return the weight of one rank's loss of a microbatch in the mean that an update follows.

    That is a mean over all tokens of the microbatches of an update, on all ranks that share them.
    """
    parallel = lowered.experiment.parallel
    every = lowered.schedule.updates(lowered.plan).every
    return 1.0 / (parallel.averaged_shares * parallel.context * every)
