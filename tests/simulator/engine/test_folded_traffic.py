"""What a folded program takes of a link is what all ranks take of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator import load, lower
from simulator.cluster.resolve import resolve
from simulator.cluster.resource import Resource
from simulator.cluster.topology import Tier
from simulator.engine.folded_traffic import FoldedTraffic
from simulator.engine.replica_folding import folding_of
from simulator.program.operations import COMMUNICATION, Op


@pytest.mark.parametrize("tiers", [(), (Tier(2, 4.0),)])
@pytest.mark.parametrize(
    ("parallel", "preset", "per_node"),
    [
        (("data=4", "pipeline=2", "tensor=2"), "a100-pcie", 4),
        (("data=16", "pipeline=3", "zero=1"), "dgx-a100-80gb", 4),
        (("data=4", "pipeline=1", "context=4"), "a100-pcie", 8),
        (("data=8", "pipeline=1", "zero=2", "zero_group=4"), "a100-pcie", 4),
    ],
)
def test_it_is_the_sum_over_all_ranks(parallel, preset: str, per_node: int, tiers) -> None:
    experiment = load(
        None,
        ["workload.layers=6", "workload.hidden=64", "workload.dtype=bf16",
         "parallel.microbatches=2", f"cluster.preset={preset}",
         f"cluster.devices_per_node={per_node}", *(f"parallel.{key}" for key in parallel)],
    )  # fmt: skip
    cluster = resolve(experiment)
    cluster = replace(cluster, topology=replace(cluster.topology, tiers=tiers))
    folding = folding_of(experiment, cluster)
    assert folding is not None
    folded = lower(experiment, folding.list_of)
    traffic = FoldedTraffic(folding, cluster, folded.members)
    near = cluster.topology.capacities(folded.members)
    assert total(folded, traffic.taken, near) == pytest.approx(
        total(lower(experiment), cluster.communication.traffic, near)
    )


def total(program, taken, near) -> dict[tuple[Resource, str], float]:
    """Bytes of every activity, by resource and tensor; of resources next to ranks with a list."""
    found: dict[tuple[Resource, str], float] = {}
    seen = set()
    for instruction in program:
        task = instruction.task
        if task.op not in COMMUNICATION or task.op is Op.RECV:
            continue
        group = (instruction.rank, task.peer) if task.op is Op.SEND else task.group
        key = (task.op, group, task.tensor, task.nbytes)
        if len(group) > 1 and key not in seen:
            seen.add(key)
            for way, nbytes in taken(task.op, group, task.nbytes).items():
                if way.link in near:
                    of_tensor = way, task.tensor
                    found[of_tensor] = found.get(of_tensor, 0.0) + nbytes
    return found
