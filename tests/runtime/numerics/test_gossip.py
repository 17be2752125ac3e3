"""Replicas that mix parameters with their neighbours' train as one process says they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from replicas import OPTIMIZERS, assert_close, mix, train_apart
from simulator.strategies.gradients.topologies import topology_named

GOSSIP = {"data_style": "gossip", "iterations": 2, "warmup": 0}
PLANS = [
    {"data": 4, "topology": "ring", "horizon": 3},
    {"data": 4, "topology": "ring", "model": "mlp", "layers": 3, "bucket_mb": 1e-6},
    {"data": 4, "topology": "torus", "optimizer": "momentum", "microbatches": 2},
    {"data": 3, "topology": "exponential", "optimizer": "adam", "bucket_mb": 0.003, "horizon": 2},
    {"data": 4, "topology": "one-peer-exponential", "horizon": 5, "clip_norm": 0.1},
    {"data": 4, "topology": "complete", "horizon": 2, "recompute": "full"},
    {"data": 2, "pipeline": 2, "topology": "ring", "horizon": 3, "microbatches": 3},
    {
        "data": 2,
        "pipeline": 2,
        "topology": "ring",
        "horizon": 2,
        "microbatches": 2,
        "schedule": "zb-v",
        "virtual_stages": 2,
    },
]


def reference(experiment: Any) -> Any:
    topology = topology_named(experiment.parallel.topology, experiment.parallel.data)
    return train_apart(
        experiment,
        OPTIMIZERS[experiment.workload.optimizer],
        lambda step, values: mix(topology.matrix(step), values),
    )


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_parameters_and_losses_are_those_of_replicas_in_one_process(run, keys):
    ran = run(**GOSSIP | keys)
    parameters, losses, _ = reference(ran.experiment)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, parameters, strict=True):
        assert_close(ours, theirs)


def test_weights_of_a_file_are_used(run, tmp_path):
    (tmp_path / "w.csv").write_text("0.7,0.2,0.1\n0.1,0.7,0.2\n0.2,0.1,0.7\n")
    ran = run(**GOSSIP, data=3, horizon=2, topology=f"csv:{tmp_path}/w.csv")
    for ours, theirs in zip(ran.parameters, reference(ran.experiment)[0], strict=True):
        assert_close(ours, theirs)


DIRECTED = "0.5,0,0.25\n0.5,0.5,0\n0,0.5,0.75\n"
"""Column-stochastic; rows add up to 0.75, 1 and 1.25."""


@pytest.mark.parametrize("more", [{"clip_norm": 0.1}, {"optimizer": "adam"}], ids=name_of)
def test_push_sum_takes_gradients_at_the_ratio_and_updates_the_sum(run, tmp_path, more):
    """Assran et al. 2019, Algorithm 1; a program goes on with the weights of the one before."""
    (tmp_path / "w.csv").write_text(DIRECTED)
    keys = {"data": 3, "topology": f"csv:{tmp_path}/w.csv", "horizon": 2, "bucket_mb": 0.003}
    ran = run(**GOSSIP | keys | more, push_sum=True)
    matrix = topology_named(f"csv:{tmp_path}/w.csv", 3, push_sum=True).matrix()
    sums: list[Any] = []
    weights = torch.ones(3, dtype=torch.float64)

    class OfSums:
        """An optimizer of sums, which gets its gradients from the parameters."""

        def __init__(self, values: Any, lr: float) -> None:
            self.values, self.sums = values, [p.detach().clone().requires_grad_() for p in values]
            self.inner = OPTIMIZERS[ran.experiment.workload.optimizer](self.sums, lr=lr)
            sums.append(self.sums)

        def zero_grad(self) -> None:
            for p in self.values:
                p.grad = None

        def step(self) -> None:
            for x, p in zip(self.sums, self.values, strict=True):
                x.grad = p.grad
            self.inner.step()

    def exchange(step: int, values: Any) -> None:
        mix(matrix, sums)
        weights.copy_(torch.tensor(matrix) @ weights)
        for mine, theirs, weight in zip(values, sums, weights, strict=True):
            for p, x in zip(mine, theirs, strict=True):
                p.data.copy_(x / weight)

    parameters, losses, _ = train_apart(ran.experiment, OfSums, exchange)
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(ran.parameters, parameters, strict=True):
        assert_close(ours, theirs)


def test_push_sum_with_doubly_stochastic_weights_is_gossip(run):
    keys = {"data": 4, "topology": "one-peer-exponential", "horizon": 2, "bucket_mb": 0.003}
    pushed, plain = run(**GOSSIP | keys, push_sum=True), run(**GOSSIP | keys)
    assert pushed.measurement.losses == plain.measurement.losses
    assert pushed.measurement.consensus_distance == plain.measurement.consensus_distance
    for ours, theirs in zip(pushed.parameters, plain.parameters, strict=True):
        assert all(value.equal(theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("dtype", ["fp64", "bf16"])
def test_sums_are_held_throughout(run, dtype):
    """They are the master weights, if there are any; and a weight for each bucket."""
    keys = {"data": 2, "topology": "ring", "dtype": dtype, "horizon": 1, "bucket_mb": 0.003}
    pushed, plain = run(**GOSSIP | keys, push_sum=True), run(**GOSSIP | keys)
    for held, less, mine in zip(
        pushed.program.resident, plain.program.resident, pushed.program.buckets, strict=True
    ):
        more = held["optimizer"] - less.get("optimizer", 0)
        size = 8 if dtype == "fp64" else 4
        whole = sum(bucket.nbytes for bucket in mine) if dtype == "fp64" else 0
        assert more == whole + size * len(mine)
    measured, other = (one.measurement.timeline.memory[0].nbytes[0] for one in (pushed, plain))
    assert measured - other == more


@pytest.mark.parametrize("more", [{}, {"pipeline": 2}, {"tensor": 2}, {"context": 2}], ids=name_of)
def test_equal_weights_for_all_are_the_synchronous_method(run, more):
    keys = {"data": 2, "horizon": 2, "iterations": 2, "warmup": 0, **more}
    ran, whole = run(**GOSSIP | keys, topology="complete"), run(**keys)
    assert ran.measurement.losses == pytest.approx(whole.measurement.losses, rel=1e-12)
    for ours, theirs in zip(ran.shares, whole.shares, strict=True):
        assert_close(ours[0], theirs[0])


def test_master_weights_are_mixed(run):
    ran = run(**GOSSIP, data=4, dtype="bf16", topology="complete")
    for replica in ran.parameters[1:]:
        for key, value in ran.parameters[0].items():
            assert (value - replica[key]).abs().max() <= 2**-7 * value.abs().max()
    messages = [i.task for i in ran.program if i.task.name in ("SEND_P", "RECV_P")]
    buckets = {b.weights: b for b in ran.program.buckets[0]}
    assert all(task.nbytes == 2 * buckets[task.tensor].nbytes for task in messages)


def test_what_has_come_is_held_until_it_is_mixed(run):
    """Memory of the run is that of the program: buffers of all neighbours at the peak."""
    ran = run(**GOSSIP, data=4, topology="complete", bucket_mb=100)
    timeline = ran.measurement.timeline
    (bucket,) = ran.program.buckets[0]
    held = max(sample.nbytes.max() for sample in timeline.memory)
    assert held >= 3 * bucket.nbytes
