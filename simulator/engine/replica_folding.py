"""Ranks that do the same at the same time are simulated once.

Ranks at one place of the pipeline have equal lists up to the names of their partners. They do the
same at the same time, too, if they are of one class (`simulator.engine.rank_classes`). Where nodes
are filled by whole replicas that is all of them; where they are not, it repeats from period to
period, as nodes begin at the same place of a replica again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.cluster.placement import Integers, Placement
from simulator.engine.rank_classes import mixed, rank_classes
from simulator.engine.rank_groups import Groups, groups_of
from simulator.engine.rank_speeds import RankSpeeds
from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES, Mesh


@dataclass(frozen=True, eq=False)
class Folding:
    """The ranks of a plan that stand for all.

    Attributes:
        mesh: of the trainers; ranks of other roles stand for themselves.
        placement: of all ranks, in order.
        groups: those that communicate.
        classes: of each rank the class; ranks of one class have equal times.
        list_of: of each rank the list that says what it does (see `Program.list_of`). Whole
            pipelines have lists, so that messages find both sides.
    """

    mesh: Mesh
    placement: Placement
    groups: list[Groups]
    classes: Integers
    list_of: list[int]


def folding_of(experiment: Experiment, cluster: Cluster) -> Folding | None:
    """Return which ranks stand for all; None: every rank is simulated.

    Lists that a user's transforms have changed may differ in any way; ranks that share cores or a
    device must all be there; what is drawn, from a profile or as jitter, differs from rank to
    rank; and some data styles need every rank (`Parallel.needs_every_rank`).
    """
    alone = cluster.cores is None and cluster.topology.per_device == 1
    parallel = experiment.parallel
    drawn = cluster.profile is not None or RankSpeeds(experiment).vary
    if parallel.transforms or drawn or not alone or parallel.needs_every_rank:
        return None
    mesh, groups, world_size = experiment.mesh, groups_of(experiment), experiment.world_size
    placement = Placement(cluster.topology, np.arange(world_size))
    stages = np.arange(world_size) + mesh.degrees["pipeline"]  # of ranks without passes: unlike
    stages[mesh.ranks] = np.arange(mesh.degrees["pipeline"])[:, None, None, None]
    factors = sorted({factor for _, factor in experiment.cluster.slowdown})
    for rank, factor in experiment.cluster.slowdown:  # ranks of another speed are unlike, too
        stages[rank] += 2 * world_size * (1 + factors.index(factor))
    classes = rank_classes(placement, stages, groups)
    list_of = lists_of(mesh, classes[: mesh.world_size])
    list_of += [max(list_of) + 1 + number for number in range(world_size - mesh.world_size)]
    if max(list_of) + 1 == world_size:
        return None
    return Folding(mesh, placement, groups, classes, list_of)


def lists_of(mesh: Mesh, classes: Integers) -> list[int]:
    """Return for every rank the number of its list.

    Two positions on an axis, the pipeline's excepted, are alike if all ranks there are of the same
    classes; the first of those that are alike stands for them. So of every group with a rank that
    has a list, one rank of every class has one.
    """
    cut = classes[mesh.ranks]
    first_alike = []
    for number, axis in enumerate(AXES):
        slices = np.moveaxis(cut, number, 0).reshape(cut.shape[number], -1)
        codes = mixed(mixed(slices) + np.arange(slices.shape[1], dtype=np.uint64))
        _, first, which = np.unique(
            codes.sum(axis=1, dtype=np.uint64), return_index=True, return_inverse=True
        )
        first_alike.append(np.arange(len(slices)) if axis == "pipeline" else first[which])
    stands = np.empty(mesh.world_size, dtype=np.int64)
    stands[mesh.ranks] = mesh.ranks[np.ix_(*first_alike)]
    list_of: list[int] = np.unique(stands, return_inverse=True)[1].tolist()
    return list_of
