"""Lowering: a chain of small passes from an experiment to the program of every rank.

partition into stages → order the passes of each pipeline rank → lower them to segments
and messages → gradient traffic → optimizer step. A new strategy is one new file with one
such pass, and its line here.
"""

from __future__ import annotations

from simulator.experiment import Experiment, ExperimentError
from simulator.gc_pause import paused_gc
from simulator.mesh import Mesh
from simulator.program import Program
from simulator.strategies.data_parallel import reduce_gradients
from simulator.strategies.partition import split_buckets, split_stages
from simulator.strategies.pipeline import Stage, lower_passes, messages_to
from simulator.strategies.schedules import Plan, Updates, schedule_named
from simulator.strategies.updates import insert_updates
from simulator.validate import validate
from simulator.workloads import Layer, describe


def mesh_of(experiment: Experiment) -> Mesh:
    """The device mesh of the experiment's degrees."""
    parallel = experiment.parallel
    return Mesh(
        data=parallel.data,
        pipeline=parallel.pipeline,
        expert=parallel.expert,
        context=parallel.context,
        tensor=parallel.tensor,
    )


def plan_of(experiment: Experiment) -> Plan:
    """What the schedule is given."""
    parallel = experiment.parallel
    return Plan(parallel.pipeline, parallel.microbatches, parallel.virtual_stages)


def lower(experiment: Experiment) -> Program:
    """Write the program of `experiment` and validate it.

    Raises:
        ExperimentError: the plan has no valid program; the message says why.
    """
    with paused_gc():
        program = _lower(experiment)
        try:
            validate(program)
        except ValueError as error:
            raise ExperimentError(
                f"parallel.schedule = {experiment.parallel.schedule!r}: {error}"
            ) from None
    return program


def _lower(experiment: Experiment) -> Program:
    mesh, layers = mesh_of(experiment), describe(experiment)
    parallel = experiment.parallel
    plan = plan_of(experiment)
    value_bytes = experiment.workload.dtype_bytes
    schedule = schedule_named(parallel.schedule)
    refusal = schedule.refusal(plan)
    if refusal:
        raise ExperimentError(f"parallel.schedule = {parallel.schedule!r} with {refusal}")
    ranges, placement = split_stages(layers, plan.num_stages), schedule.placement(plan)
    orders = [schedule.order(plan, place) for place in range(plan.num_ranks)]
    updates = updates_of(experiment)
    lists, resident = [], []
    stages_of = [
        _stages_of(rank, experiment, mesh, layers, ranges, placement)
        for rank in range(mesh.world_size)
    ]
    for rank, stages in enumerate(stages_of):
        pipeline = mesh.group(rank, "pipeline")
        sent = {
            peer: messages_to(rank, orders[place], stages_of[peer], peer)
            for place, peer in enumerate(pipeline)
        }
        passes = orders[pipeline.index(rank)]
        instructions = lower_passes(rank, passes, stages, layers, sent)
        instructions = reduce_gradients(
            instructions,
            mesh.group(rank, "data"),
            layers,
            value_bytes,
            updates.every,
            plan.num_microbatches,
        )
        owned = [(stage.index, stage.first, stage.last) for stage in stages.values()]
        lists.append(
            insert_updates(instructions, owned, layers, value_bytes, updates, plan.num_microbatches)
        )
        parameters = sum(
            layer.parameters for _, first, last in owned for layer in layers[first:last]
        )
        resident.append(
            {"parameters": parameters * value_bytes, "gradients": parameters * value_bytes}
        )
    return Program(lists, resident, num_stages=len(ranges))


def updates_of(experiment: Experiment) -> Updates:
    """When the experiment's schedule updates the weights: asynchronous ones say so."""
    choose = getattr(schedule_named(experiment.parallel.schedule), "updates", None)
    plan = plan_of(experiment)
    updates: Updates = choose(plan) if choose else Updates(every=plan.num_microbatches)
    return updates


def _stages_of(
    rank: int,
    experiment: Experiment,
    mesh: Mesh,
    layers: list[Layer],
    ranges: list[tuple[int, int]],
    placement: list[int],
) -> dict[int, Stage]:
    """The stages that `rank` owns, by stage index, with their neighbours' ranks."""
    pipeline = mesh.group(rank, "pipeline")
    place = pipeline.index(rank)
    stages = {}
    for index in range(len(ranges)):
        if placement[index] != place:
            continue
        segments = [ranges[index]]
        if experiment.parallel.data > 1:
            segments = split_buckets(
                layers,
                ranges[index],
                experiment.parallel.bucket_mb * 1e6,
                experiment.workload.dtype_bytes,
            )
        stages[index] = Stage(
            index=index,
            segments=segments,
            previous_rank=pipeline[placement[index - 1]] if index else None,
            next_rank=pipeline[placement[index + 1]] if index + 1 < len(ranges) else None,
        )
    return stages


__all__ = ["lower", "mesh_of"]
