"""Replicas update by their own gradients, and mix parameters with neighbours in every step.

Decentralised parallel SGD (Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized
Algorithms?", Algorithm 1), in the order in which a replica first updates and then mixes (footnote 4
there): x_i ← Σ_j W_ij (x_j - η g_j(x_j)). With equal weights for all replicas that is synchronous
SGD. The optimizer's state stays with its replica.

With push-sum the weights need not be doubly stochastic (Assran et al. 2019, "Stochastic Gradient
Push for Distributed Deep Learning", Algorithm 1): replicas mix sums x and weights w, which travel
with them, gradients are taken at z = x/w, and update x. A sender multiplies what it sends by its
weights there; here the receiver does, which knows them as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Reference
from simulator.program.tensors import Tensor, TensorName, pushed_sum
from simulator.strategies.gradients.replicas import check_replicas, exchanged_bytes, exchanged_width
from simulator.strategies.gradients.step_calls import StepCalls
from simulator.strategies.gradients.topologies import Topology, topology_named
from simulator.strategies.lowered import Lowered


def check(experiment: Experiment) -> None:
    """Refuse what replicas that differ cannot do, and topologies that do not mix.

    Every iteration is a program of its own and begins with the first step of a topology, so
    programs that are too short would never come to the others.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    if parallel.data_style != "gossip":
        if parallel.topology is not None and not parallel.averages_pairs:
            raise ExperimentError(
                f"parallel.topology = {parallel.topology!r}: only for parallel.data_style = "
                f"'gossip' or 'ad-psgd', not {parallel.data_style!r}"
            )
        if parallel.push_sum:
            raise ExperimentError(
                "parallel.push_sum = true: only for parallel.data_style = 'gossip', not "
                f"{parallel.data_style!r}"
            )
        return
    check_replicas(experiment)
    if parallel.topology is None:
        raise ExperimentError(
            "parallel.data_style = 'gossip': needs parallel.topology, which is not set"
        )
    topology = _topology(experiment)
    period, horizon = len(topology.taken), experiment.run.horizon
    if horizon < period:
        raise ExperimentError(
            f"run.horizon = {horizon}: parallel.topology = {parallel.topology!r} of "
            f"{parallel.axis_size('data')} replicas has other neighbours in each of {period} "
            f"steps; allowed: {period} or more"
        )


def mix_parameters(lowered: Lowered) -> Lowered:
    """Let replicas exchange the parameters of every bucket behind each step, and mix them.

    What comes is mixed in before the first call that uses the bucket.
    """
    parallel, horizon = lowered.experiment.parallel, lowered.experiment.run.horizon
    topology, size = _topology(lowered.experiment), exchanged_width(lowered.experiment)

    def change(rank: int, calls: list[Call]) -> list[Call]:
        replicas = lowered.mesh.group(rank, "data")
        mine = StepCalls(calls, parallel.microbatches)
        for bucket in lowered.buckets[rank]:
            call, number = mine.last_gradient(0, bucket)
            last = call.template.entries[number].task
            whole = exchanged_bytes(bucket, lowered.experiment)
            common = Task(
                op=Op.MIX,
                stage=last.stage,
                layers=last.layers,
                segment=last.segment,
                tensor=pushed_sum(bucket.weights) if parallel.push_sum else bucket.weights,
                nbytes=whole + (size if parallel.push_sum else 0),
            )
            period = len(topology.taken)
            exchanges = [
                _exchange(common, topology, replicas, replicas.index(rank), step)
                for step in range(min(period, horizon))
            ]
            for step in range(horizon):
                messages, mixing = exchanges[step % period]
                update = mine.updates(step, bucket)[-1]
                waits: list[Reference] = [(update, 0)]
                waits += [mine.insert(m, step, waits[:1], behind=update) for m in messages]
                used = mine.first_use(step + 1, bucket)
                mine.insert(mixing, step, waits, before=None if used is None else used[0])
        return mine.calls()

    lowered = lowered.with_calls(change)
    if not parallel.push_sum:
        return lowered
    resident = {rank: _with_sums(held, lowered, rank) for rank, held in lowered.resident.items()}
    return replace(lowered, resident=resident)


def _topology(experiment: Experiment) -> Topology:
    parallel = experiment.parallel
    assert parallel.topology is not None
    return topology_named(parallel.topology, parallel.axis_size("data"), parallel.push_sum)


def _with_sums(held: Mapping[str, int], lowered: Lowered, rank: int) -> dict[str, int]:
    """Return what a rank holds throughout, with sums and weights; sums are the master weights."""
    experiment, mine = lowered.experiment, lowered.buckets[rank]
    more = len(mine) * exchanged_width(experiment)
    if not experiment.workload.has_master_weights:
        more += sum(exchanged_bytes(bucket, experiment) for bucket in mine)
    return {**held, "optimizer": held.get("optimizer", 0) + more}


def _exchange(
    common: Task, topology: Topology, replicas: tuple[int, ...], me: int, step: int
) -> tuple[list[Task], Task]:
    """Return the messages of a replica about a bucket, and the mixing, in a step of the topology.

    Args:
        common: what all of these have in common.
        topology: says who takes what.
        replicas: their ranks.
        me: the position of this replica.
        step: of the program.
    """
    row = topology.row(me, step)
    assert common.tensor is not None
    come = {
        other: TensorName.other("neighbour", common.tensor.boundary)._replace(part=other)
        for other in row
        if other != me
    }
    messages = [
        replace(common, op=Op.SEND, mnemonic="SEND_P", stream=Stream.send(peer), peer=peer)
        for peer in (replicas[other] for other in topology.takers(me, step))
    ]
    messages += [
        replace(
            common,
            op=Op.RECV,
            mnemonic="RECV_P",
            stream=Stream.recv(replicas[other]),
            peer=replicas[other],
            allocates=(Tensor(name, common.nbytes),),
        )
        for other, name in come.items()
    ]
    names = tuple(come.values())
    weights = (row.get(me, 0.0), *(row[other] for other in come))
    return messages, replace(common, sources=names, frees=names, coefficients=weights)
