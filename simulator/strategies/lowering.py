"""Lowering is a chain of transforms from an experiment to the program of every rank.

Each transform takes a `Lowered` and returns one that is further on. The chain is written here;
what a transform does stands in a file of its own, beside the checks of its strategy.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.check import check_program
from simulator.program.errors import ProgramError
from simulator.program.gc_pause import paused_gc
from simulator.program.program import Program, members_of
from simulator.strategies.gradients.ad_psgd import average_pairs
from simulator.strategies.gradients.all_reduce import insert_reductions
from simulator.strategies.gradients.asynchronous import serve_by_arrival
from simulator.strategies.gradients.buckets import bind_buckets
from simulator.strategies.gradients.clipping import insert_gradient_norms
from simulator.strategies.gradients.compressed_averages import compress_averages
from simulator.strategies.gradients.compression import compress_gradients
from simulator.strategies.gradients.gossip import mix_parameters
from simulator.strategies.gradients.local_steps import average_parameters
from simulator.strategies.gradients.optimizer_steps import insert_optimizer_steps
from simulator.strategies.gradients.parameter_layout import ParameterLayout
from simulator.strategies.gradients.parameter_server import add_servers, choose_servers
from simulator.strategies.gradients.policies import POLICIES
from simulator.strategies.gradients.scatter_gather import (
    cut_off_loss,
    gather_on_root,
    scatter_passes,
)
from simulator.strategies.gradients.shared_servers import choose_trainers, update_in_turn
from simulator.strategies.gradients.tied import tied_ends
from simulator.strategies.gradients.weight_versions import stash_weights
from simulator.strategies.gradients.work_queue import hand_out_work
from simulator.strategies.gradients.zero import gather_parameters, shard_tensors
from simulator.strategies.lowered import Lowered
from simulator.strategies.repeated_steps import repeat_steps
from simulator.strategies.schedules.checks import plan_of_program, updates_within_a_step
from simulator.strategies.schedules.ordering import order_passes
from simulator.strategies.schedules.registry import SCHEDULES, schedule_named
from simulator.strategies.stages.assignment import assign_stages
from simulator.strategies.stages.dataflow import Flow, Range
from simulator.strategies.stages.messages import expand_passes
from simulator.strategies.stages.partition import partition_layers
from simulator.strategies.stages.segments import segment_stages
from simulator.strategies.transform import Transform
from simulator.strategies.user_transforms import KEY, apply_user_transforms
from simulator.workloads.describe import describe

CHAIN = (
    Transform("layers are divided among stages", partition_layers),
    Transform("the schedule orders passes", order_passes),
    Transform(
        "the loss is a stage of its own",
        cut_off_loss,
        lambda experiment: experiment.parallel.is_scattered,
    ),
    Transform("stages are cut into segments and buckets", segment_stages),
    Transform("ranks get their stages", assign_stages),
    Transform("ranks get their buckets", bind_buckets),
    Transform(
        "buckets get the servers that update them",
        choose_servers,
        lambda experiment: (
            experiment.parallel.has_servers and not experiment.parallel.shares_servers
        ),
    ),
    Transform(
        "buckets get the trainers that update them",
        choose_trainers,
        lambda experiment: experiment.parallel.shares_servers,
    ),
    Transform(
        "rank 0 updates all buckets",
        gather_on_root,
        lambda experiment: experiment.parallel.is_scattered,
    ),
    Transform(
        "passes become segments, exchanges and messages",
        expand_passes,
        lambda experiment: not experiment.parallel.is_scattered,
    ),
    Transform(
        "rank 0 sends shares of the batch, and computes the losses of all",
        scatter_passes,
        lambda experiment: experiment.parallel.is_scattered,
    ),
    Transform(
        "gradients are summed over the ranks that share them, or go to servers",
        insert_reductions,
        lambda experiment: (
            (
                experiment.world_size > experiment.parallel.pipeline
                or experiment.workload.tie_embeddings
            )
            and not experiment.parallel.is_asynchronous
        ),
    ),
    Transform(
        "gradients and parameters are whole only while they are used",
        shard_tensors,
        lambda experiment: experiment.parallel.shards_gradients,
    ),
    Transform(
        "weights are updated",
        insert_optimizer_steps,
        lambda experiment: (
            not (experiment.parallel.has_servers or experiment.parallel.is_scattered)
        ),
    ),
    Transform(
        "servers update weights for the other ranks",
        add_servers,
        lambda experiment: (
            experiment.parallel.has_servers
            and not experiment.parallel.is_asynchronous
            and not experiment.parallel.shares_servers
        ),
    ),
    Transform(
        "trainers update weights for each other",
        update_in_turn,
        lambda experiment: experiment.parallel.shares_servers or experiment.parallel.is_scattered,
    ),
    Transform(
        "the norm of the gradient comes before the updates",
        insert_gradient_norms,
        lambda experiment: experiment.workload.needs_gradient_norm,
    ),
    Transform(
        "forward passes name the weights they use, which are kept for them",
        stash_weights,
        updates_within_a_step,
    ),
    Transform(
        "updated parameters are gathered",
        gather_parameters,
        lambda experiment: (
            experiment.parallel.shards_optimizer and not experiment.parallel.shards_parameters
        ),
    ),
    Transform(
        "training steps follow each other",
        repeat_steps,
        lambda experiment: experiment.run.horizon > 1 and not updates_within_a_step(experiment),
    ),
    Transform(
        "gradients are sent in a smaller form",
        compress_gradients,
        lambda experiment: (
            experiment.parallel.compression != "none"
            and experiment.parallel.data_style == "all-reduce"
        ),
    ),
    Transform(
        "replicas average their parameters",
        average_parameters,
        lambda experiment: experiment.parallel.data_style in ("local-sgd", "diloco"),
    ),
    Transform(
        "changes of parameters are sent in a smaller form",
        compress_averages,
        lambda experiment: (
            experiment.parallel.compression != "none"
            and experiment.parallel.data_style in ("local-sgd", "diloco")
        ),
    ),
    Transform(
        "replicas mix their parameters with those of neighbours",
        mix_parameters,
        lambda experiment: experiment.parallel.data_style == "gossip",
    ),
    Transform(
        "replicas average in pairs as they come",
        average_pairs,
        lambda experiment: experiment.parallel.averages_pairs,
    ),
    Transform(
        "a server hands out microbatches",
        hand_out_work,
        lambda experiment: experiment.parallel.hands_out_work,
    ),
    Transform(
        "a server serves workers as they come",
        serve_by_arrival,
        lambda experiment: experiment.parallel.is_asynchronous,
    ),
)
"""Every transform in its order; a plan is taken through those that it asks for."""


def lower(experiment: Experiment, list_of: Sequence[int] = ()) -> Program:
    """Write the program of `experiment` and check it.

    Args:
        experiment: what is lowered.
        list_of: for every rank the number of its list (see `Program.list_of`); the first rank
            of each list is lowered. Not given: every rank has its own. Whether times are then
            still those of the whole program is for `simulator.engine.replica_folding` to say.

    Raises:
        ExperimentError: the plan has no valid program; the message says why.
        ProgramError: the program cannot run, and none of it is of the user's own making.
    """
    with paused_gc():
        ours = apply_chain(begin(experiment, list_of))
        program = program_of(apply_user_transforms(ours), list_of)
        try:
            check_program(program)
        except ProgramError as error:
            raise refusal_of(experiment, list_of, error) from None
    return program


def begin(experiment: Experiment, list_of: Sequence[int] = ()) -> Lowered:
    """Return the plan before the first transform.

    Both interpreters must get the same program, so what a schedule is told of times is what
    the experiment alone says, whatever the cluster.
    """
    mesh, layers = experiment.mesh, describe(experiment)
    members = members_of(list_of) if list_of else range(mesh.world_size)
    return Lowered(
        experiment=experiment,
        mesh=mesh,
        ranks=[rank for rank in members if rank < mesh.world_size],
        layers=layers,
        flow=Flow(layers),
        layout=ParameterLayout(mesh, experiment.parallel.shards, tied_ends(experiment)),
        schedule=schedule_named(experiment.parallel.schedule),
        plan=plan_of_program(experiment),
    )


def apply_chain(lowered: Lowered) -> Lowered:
    """Take a plan through the transforms that its experiment asks for."""
    for transform in CHAIN:
        if transform.applies(lowered.experiment):
            lowered = transform.apply(lowered)
    return lowered


def program_of(lowered: Lowered, list_of: Sequence[int] = ()) -> Program:
    """Return the program at the end of the chain, unchecked."""
    written = bool(lowered.own_lists)
    return Program(
        [lowered.lists[rank] for rank in lowered.ranks] if written else [],
        [lowered.resident[rank] for rank in lowered.ranks],
        [lowered.buckets[rank] for rank in lowered.ranks],
        len(lowered.ranges),
        list(list_of),
        [] if written else [lowered.calls[rank] for rank in lowered.ranks],
        lowered.counted_microbatches,
    )


def layers_of_stages(experiment: Experiment) -> list[dict[int, Range]]:
    """Return for each pipeline rank its stages, and the layers [first, last) of each.

    Raises:
        ExperimentError: the schedule refuses the plan, or the model has too few blocks.
    """
    lowered = partition_layers(begin(experiment))
    owned: list[dict[int, Range]] = [{} for _ in range(lowered.plan.num_ranks)]
    for stage, owner in enumerate(lowered.schedule.placement(lowered.plan)):
        owned[owner][stage] = lowered.ranges[stage]
    return owned


def refusal_of(experiment: Experiment, list_of: Sequence[int], error: ProgramError) -> Exception:
    """Return whose mistake a program is that cannot run: the user's, where the order is theirs.

    Args:
        experiment: what was lowered.
        list_of: with this list for every rank.
        error: what is wrong with the program.
    """
    parallel = experiment.parallel
    if parallel.transforms:
        try:
            check_program(program_of(apply_chain(begin(experiment, list_of)), list_of))
        except ProgramError:
            pass  # it could not run before the transforms, either
        else:
            return ExperimentError(f"{KEY} = {list(parallel.transforms)}: {error}")
    if parallel.policy not in POLICIES:
        return ExperimentError(f"parallel.policy = {parallel.policy!r}: {error}")
    if parallel.schedule not in SCHEDULES:
        return ExperimentError(f"parallel.schedule = {parallel.schedule!r}: {error}")
    return error
