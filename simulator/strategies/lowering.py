"""Lowering: a chain of small passes from an experiment to the program of every rank.

partition into stages → order the passes of each pipeline rank → lower them to segments
and messages → gradient traffic → sharding → optimizer step. A new strategy is one new file with one
such pass, and its line here.
"""

from __future__ import annotations

from math import inf

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.check import check_program
from simulator.program.gc_pause import paused_gc
from simulator.program.program import Program
from simulator.strategies.gradients import zero
from simulator.strategies.gradients.all_reduce import reduce_gradients
from simulator.strategies.gradients.optimizer_steps import insert_updates
from simulator.strategies.gradients.parameter_layout import Place, Places
from simulator.strategies.schedules.registry import Pass, Plan, Schedule, Updates, schedule_named
from simulator.strategies.stages.dataflow import Flow, Range
from simulator.strategies.stages.messages import lower_passes, messages_from
from simulator.strategies.stages.partition import split_stages, stage_costs
from simulator.strategies.stages.recompute import RecomputedStage
from simulator.strategies.stages.segments import Filled, Spread, cut
from simulator.strategies.stages.stage import Stage
from simulator.workloads.describe import Layer, describe


def plan_of(experiment: Experiment) -> Plan:
    """What the schedule is given.

    Both interpreters must get the same program, so costs are what the experiment alone
    says, whatever the cluster: the seconds of `unit`, else FLOPs, with messages for free.

    Raises:
        ExperimentError: the schedule refuses it, or the model has too few blocks.
    """
    schedule, layers = schedule_named(experiment.parallel.schedule), describe(experiment)
    return _plan(experiment, schedule, layers)[0]


def layers_of_stages(experiment: Experiment) -> list[dict[int, Range]]:
    """Return for each pipeline rank its stages, and the layers [first, last) of each.

    Raises:
        ExperimentError: the schedule refuses the plan, or the model has too few blocks.
    """
    schedule, layers = schedule_named(experiment.parallel.schedule), describe(experiment)
    plan, ranges = _plan(experiment, schedule, layers)
    owned: list[dict[int, Range]] = [{} for _ in range(plan.num_ranks)]
    for stage, owner in enumerate(schedule.placement(plan)):
        owned[owner][stage] = ranges[stage]
    return owned


def _updates(schedule: Schedule, plan: Plan) -> Updates:
    return schedule.updates(plan)


def _plan(
    experiment: Experiment, schedule: Schedule, layers: list[Layer]
) -> tuple[Plan, list[Range]]:
    """The plan and the layers of each stage, on whose costs it may depend."""
    parallel = experiment.parallel
    plan = Plan(
        parallel.pipeline,
        parallel.microbatches,
        parallel.virtual_stages,
        p2p=experiment.workload.p2p,
        memory_limit=parallel.memory_limit,
    )
    refusal = schedule.refusal(plan)
    if refusal:
        raise ExperimentError(f"parallel.schedule = {parallel.schedule!r} with {refusal}")
    ranges = _ranges(experiment, layers)
    costs = stage_costs(layers, ranges, parallel.recompute == "full")
    return plan._replace(costs=costs), ranges


def _ranges(experiment: Experiment, layers: list[Layer]) -> list[Range]:
    """The layers of each stage: as ``parallel.split`` says, or balanced.

    Raises:
        ExperimentError: the model has too few blocks, or not as many as the split.
    """
    parallel = experiment.parallel
    try:
        return split_stages(layers, parallel.pipeline * parallel.virtual_stages, parallel.split)
    except ValueError as error:
        key = "virtual_stages" if parallel.split is None else "split"
        value = parallel.virtual_stages if parallel.split is None else list(parallel.split)
        raise ExperimentError(f"parallel.{key} = {value}: {error}") from None


def lower(experiment: Experiment, fold: bool = False) -> Program:
    """Write the program of `experiment` and validate it.

    Args:
        fold: only the ranks of `Mesh.representatives`; whether times are then still those
            of the whole program is for `simulator.engine.replica_folding` to say.

    Raises:
        ExperimentError: the plan has no valid program; the message says why.
    """
    with paused_gc():
        program = _lower(experiment, fold)
        try:
            check_program(program)
        except ValueError as error:
            raise ExperimentError(
                f"parallel.schedule = {experiment.parallel.schedule!r}: {error}"
            ) from None
    return program


def _lower(experiment: Experiment, fold: bool) -> Program:
    mesh, layers = experiment.mesh, describe(experiment)
    schedule = schedule_named(experiment.parallel.schedule)
    plan, ranges = _plan(experiment, schedule, layers)
    updates, placement = _updates(schedule, plan), schedule.placement(plan)
    value_bytes = experiment.workload.dtype_bytes
    orders = [schedule.order(plan, place) for place in range(plan.num_ranks)]
    states = experiment.workload.optimizer_bytes // value_bytes
    prefetch = 1 if experiment.parallel.prefetch is None else experiment.parallel.prefetch
    flow, places = Flow(layers), Places(mesh, experiment.parallel.shards)
    lists, resident, held = [], [], []
    ranks = mesh.representatives() if fold else list(range(mesh.world_size))
    place_of = {rank: mesh.coordinate(rank)["pipeline"] for rank in ranks}
    cuts = [_cut(experiment, mesh, layers, stage) for stage in ranges]
    stages_of = {
        rank: _stages_of(experiment, rank, mesh, flow, [pieces for pieces, _ in cuts], placement)
        for rank in ranks
    }
    incoming: dict[int, dict[int, list[Pass]]] = {rank: {} for rank in ranks}
    for source, stages in stages_of.items():
        for target, started in messages_from(source, orders[place_of[source]], stages).items():
            incoming[target][source] = started
    for rank, stages in stages_of.items():
        instructions = lower_passes(orders[place_of[rank]], stages, incoming[rank])
        mine = [bucket for index in stages for bucket in cuts[index][1]]
        buckets = [_placed(bucket, places.of(bucket.spread, rank), experiment) for bucket in mine]
        instructions = reduce_gradients(instructions, buckets, updates.every, plan.num_microbatches)
        instructions = zero.shard(instructions, buckets, prefetch)
        owned = [(stage.index, stage.first, stage.last) for stage in stages.values()]
        instructions = insert_updates(
            instructions,
            owned,
            layers,
            value_bytes,
            updates,
            plan.num_microbatches,
            places.model(rank) if experiment.workload.needs_gradient_norm else (),
        )
        lists.append(zero.gather_updated(instructions, buckets))
        resident.append(zero.resident_bytes(buckets, states))
        held.append(buckets)
    return Program(lists, resident, held, len(ranges), mesh.represented_by() if fold else [])


def _cut(
    experiment: Experiment, mesh: Mesh, layers: list[Layer], stage: Range
) -> tuple[list[Range], list[Filled]]:
    """Pieces and buckets of a stage: only gradients that are sums are cut into buckets."""
    bucket_bytes = experiment.parallel.bucket_mb * 1e6

    def limit(spread: Spread) -> float:
        return bucket_bytes if len(mesh.group(0, *spread.sums_over)) > 1 else inf

    wide = {axis for axis, degree in mesh.degrees.items() if degree > 1}
    at_blocks = experiment.parallel.recompute == "full"
    return cut(layers, stage, experiment.workload.dtype_bytes, limit, wide, at_blocks)


def _placed(bucket: Filled, place: Place, experiment: Experiment) -> Bucket:
    """A bucket with the ranks of its mesh axes."""
    size = max(len(place.shards), 1)
    return Bucket(
        bucket.segments,
        replicas=place.replicas,
        shards=place.shards,
        zero=experiment.parallel.zero if place.shards else 0,
        copies=place.copies,
        nbytes=-(-bucket.parameters // size) * size * experiment.workload.dtype_bytes,
    )


def model_ranks(experiment: Experiment, rank: int) -> tuple[int, ...]:
    """See `Places.model`."""
    return Places(experiment.mesh, experiment.parallel.shards).model(rank)


def _stages_of(
    experiment: Experiment,
    rank: int,
    mesh: Mesh,
    flow: Flow,
    pieces: list[list[Range]],
    placement: list[int],
) -> dict[int, Stage]:
    """The stages that `rank` owns, by stage index, with their neighbours' ranks."""
    pipeline = mesh.group(rank, "pipeline")
    groups = {axis: mesh.group(rank, axis) for axis in AXES}
    place = pipeline.index(rank)
    kind = RecomputedStage if experiment.parallel.recompute == "full" else Stage
    return {
        index: kind(
            index=index,
            pieces=pieces[index],
            flow=flow,
            previous_rank=pipeline[placement[index - 1]] if index else None,
            next_rank=pipeline[placement[index + 1]] if index + 1 < len(pieces) else None,
            groups=groups,
            rank=rank,
        )
        for index in range(len(pieces))
        if placement[index] == place
    }
