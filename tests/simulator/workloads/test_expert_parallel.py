"""Expert parallelism: what is sent, what is held, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from simulator import lower, predict
from simulator.analysis.metrics import model_flops
from simulator.cluster.catalogue import load_preset
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.operations import COLLECTIVES, Op
from simulator.workloads.describe import describe, describe_whole

B, S, H, F, V, E, K = 2, 64, 32, 128, 256, 8, 2
WIDTH = 2


def make(layers: int = 2, workload: dict[str, Any] | None = None, **keys: Any) -> Experiment:
    """`B` sequences a microbatch, whatever the degrees."""
    shape = {"layers": layers, "hidden": H, "heads": 8, "sequence": S, "dtype": "bf16"}
    model = {"model": "moe-gpt", "experts": E, "capacity_factor": 1.0} | (workload or {})
    shares = keys.get("data", 1) * keys.get("expert", 1) * keys.get("microbatches", 1)
    return parse({"workload": shape | {"global_batch": B * shares} | model, "parallel": keys})


def sent(experiment: Experiment, rank: int = 0) -> Counter[tuple[str, str, int]]:
    """How many collectives of each operation, stream and size a rank takes part in."""
    tasks = (i.task for i in lower(experiment).ranks[rank])
    return Counter((t.op.value, t.stream.axis, t.nbytes) for t in tasks if t.op in COLLECTIVES)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
@pytest.mark.parametrize(("expert", "microbatches"), [(2, 1), (4, 3), (8, 2)])
@pytest.mark.parametrize("plan", [{}, {"tensor": 2}, {"tensor": 4, "sequence_parallel": True}])
def test_two_all_to_alls_forward_and_two_backward(expert, microbatches, factor, plan):
    """Of every mixture and microbatch (Lepikhin et al. 2020), each of all slots of a rank:
    experts × capacity × hidden values, whatever the degrees."""
    layers = 3
    keys = {"expert": expert, "microbatches": microbatches, **plan}
    experiment = make(layers, {"capacity_factor": factor}, **keys)
    slots = int(factor * B * S * K)  # all divide evenly here
    for rank, instructions in enumerate(lower(experiment).ranks):
        exchanges = [i.task for i in instructions if i.task.op is Op.ALL_TO_ALL]
        assert len(exchanges) == 4 * layers * microbatches
        assert {task.nbytes for task in exchanges} == {slots * H * WIDTH}
        assert {task.group for task in exchanges} == {experiment.mesh.group(rank, "expert")}
        assert {task.stream.axis for task in exchanges} == {"expert"}


def test_tensor_ranks_add_up_tokens_and_not_slots():
    """Per mixture one all-reduce of the tokens forward and one back, as for an MLP."""
    more = sent(make(3, tensor=2))
    more.subtract(sent(make(2, tensor=2)))
    tokens = B * S * H * WIDTH
    assert {key: n for key, n in more.items() if n and key[1] == "tensor"} == {
        ("ALL_REDUCE", "tensor", tokens): 4
    }


def test_experts_are_summed_over_data_and_the_rest_over_experts_too():
    plan = make(data=2, expert=4)
    mesh = plan.mesh
    router, attention = H * E, 4 * H * H + 4 * H + 2 * H
    block = E * (2 * H * F + F + H)
    rest = V * H + S * H + 2 * (attention + router + 2 * H) + 2 * H + H * V
    for rank, buckets in enumerate(lower(plan).buckets):
        sizes = {bucket.replicas: bucket.nbytes for bucket in buckets}
        assert sizes == {
            mesh.group(rank, "data"): 2 * block // 4 * WIDTH,
            mesh.group(rank, "data", "expert"): rest * WIDTH,
        }
        copies = {bucket.replicas: bucket.copies for bucket in buckets}
        assert copies == {mesh.group(rank, "data"): 1, mesh.group(rank, "data", "expert"): 4}


def test_a_mixture_is_two_segments():
    """The experts, and what is between them: nothing is cut where nobody talks."""
    (rank, *_) = lower(make(3, expert=2)).ranks
    assert sum(i.task.op is Op.FORWARD for i in rank) == 2 * 3 + 1


@pytest.mark.parametrize("plan", [{"expert": 2}, {"tensor": 2}, {"expert": 4, "tensor": 2}])
def test_parts_add_up_to_the_whole(plan):
    """Parameters and FLOPs of all parts on their ranks; the router computes on every one."""
    experiment = make(**plan)
    tensor, degree = experiment.parallel.tensor, experiment.parallel.expert
    degree *= tensor
    held, others = 0, 0
    for layer in describe(experiment):
        if "experts" in layer.kind:
            held += layer.parameters
        else:  # copies on all tensor ranks, or shares of them
            others += layer.parameters * (1 if "tensor" in layer.copied_over else tensor)
    whole = sum(layer.parameters for layer in describe_whole(experiment))
    experts = 2 * E * (2 * H * F + F + H)
    assert held * degree == experts
    assert others == whole - experts
    tokens = experiment.parallel.batch_shares * B
    alone = make(workload={"global_batch": tokens}, microbatches=experiment.parallel.batch_shares)
    assert model_flops(experiment) == model_flops(alone)
    router = 2 * 3 * 2.0 * B * S * H * E
    done = sum(layer.flops for layer in describe(experiment)) * degree
    again = router * (experiment.parallel.tensor - 1) * experiment.parallel.batch_shares
    assert done == model_flops(experiment) + again


@pytest.mark.parametrize("keys", [{"expert": 8, "data": 8, "pipeline": 2}, {"expert": 64}])
def test_identical_expert_ranks_are_simulated_once(keys):
    experiment = make(workload={"experts": 64}, **keys)
    cluster = load_preset("dgx-a100-80gb")
    cluster = cluster.resized(nodes=16)
    whole = predict(experiment, cluster, lower(experiment))
    folded = predict(experiment, cluster)
    assert folded.program.is_folded
    assert folded.iteration_time_s == pytest.approx(whole.iteration_time_s, rel=1e-12)
    assert folded.timeline.memory[0].peak == whole.timeline.memory[0].peak


def test_the_batch_is_divided_among_expert_ranks():
    plan = make(data=2, expert=4, microbatches=3)
    assert plan.microbatch_size == B
    assert parse({"workload": {"model": "moe-gpt"}, "parallel": {"expert": 4}}).global_batch == 16
    mesh = plan.mesh
    assert sorted(mesh.replica(rank) for rank in range(8)) == list(range(8))
    tensor = make(expert=2, tensor=2, pipeline=2).mesh
    assert Counter(tensor.replica(rank) for rank in range(8)) == {0: 4, 1: 4}


@pytest.mark.parametrize(
    ("workload", "keys", "message"),
    [
        ({}, {"expert": 3}, "parallel.expert = 3: .* workload.experts = 8; nearest .* works: 2"),
        ({}, {"expert": 16}, "parallel.expert = 16: .* workload.experts = 8; nearest .*: 8"),
        ({}, {"expert": 2, "tensor": 3}, "parallel.tensor = 3: does not divide"),
        (
            {"global_batch": 6},
            {"expert": 2, "microbatches": 2},
            "workload.global_batch = 6: .* data × expert × microbatches = 1 × 2 × 2 = 4; .*: 4",
        ),
        (
            {},
            {"expert": 2, "data": 2, "zero": 1, "zero_group": 2},
            "parallel.zero_group = 2: .*; allowed with parallel.expert > 1: unset",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused(workload, keys, message):
    with pytest.raises(ExperimentError, match=message) as error:
        make(workload=workload, **keys)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", ["gpt", "bert", "mlp", "unit", "resnet50"])
def test_models_without_experts_are_refused(model):
    with pytest.raises(ExperimentError, match=f"parallel.expert = 2: {model} has no experts"):
        parse({"workload": {"model": model}, "parallel": {"expert": 2}})
