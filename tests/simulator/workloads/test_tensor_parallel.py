"""Tensor and sequence parallelism: what is sent, what is held, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.operations import COLLECTIVES, Op
from simulator.strategies.lowering import lower

B, S, H, A, V = 2, 64, 32, 8, 256


def make(**keys: Any) -> Experiment:
    shape = {"layers": 2, "hidden": H, "heads": A, "sequence": S, "vocab": V, "dtype": "bf16"}
    workload = shape | {
        key: keys.pop(key) for key in ("model", "layers", "ffn_hidden") if key in keys
    }
    microbatches = keys.get("microbatches", 1) * keys.get("data", 1)
    return parse({"workload": workload | {"global_batch": B * microbatches}, "parallel": keys})


def sent(experiment: Experiment, rank: int = 0) -> Counter[tuple[str, int]]:
    """How many collectives of each operation and size a rank takes part in."""
    tasks = (i.task for i in lower(experiment).ranks[rank])
    return Counter((task.op.value, task.nbytes) for task in tasks if task.op in COLLECTIVES)


@pytest.mark.parametrize("model", ["gpt", "bert"])
@pytest.mark.parametrize(("tensor", "microbatches"), [(2, 1), (4, 3), (8, 2)])
def test_megatron_sends_four_all_reduces_a_layer_and_microbatch(model, tensor, microbatches):
    """Two forward and two backward, each of all activations (Shoeybi et al. 2019, section 3)."""
    whole = B * S * H * 2

    def count(layers: int) -> int:
        plan = make(model=model, tensor=tensor, microbatches=microbatches, layers=layers)
        return sent(plan)["ALL_REDUCE", whole]

    assert count(3) - count(2) == 4 * microbatches
    # Besides those, the embedding's, and the head's on the way back.
    assert count(2) == 10 * microbatches


def test_the_loss_needs_rows_not_logits():
    """Maximum, then sum and own logit: 3 numbers a token, and nobody has all logits."""
    plan = make(tensor=4)
    rows = {nbytes for op, nbytes in sent(plan) if nbytes < B * S * H * 2}
    assert rows == {B * S * 4, 2 * B * S * 4}  # in fp32
    logits = B * S * V * 2
    held = [tensor.nbytes for i in lower(plan).ranks[0] for tensor in i.task.allocates]
    assert logits // 4 in held
    assert logits not in held


@pytest.mark.parametrize("tensor", [2, 4])
def test_sequence_parallelism_sends_the_same_in_halves(tensor):
    """Every all-reduce becomes a reduce-scatter and an all-gather, and what was gathered on
    the way forward is gathered again (Korthikanti et al. 2022, section 4.2.2)."""

    def count(op: str, layers: int) -> int:
        plan = make(tensor=tensor, sequence_parallel=True, layers=layers)
        return sent(plan)[op, B * S * H * 2]

    assert count("REDUCE_SCATTER", 3) - count("REDUCE_SCATTER", 2) == 4
    assert count("ALL_GATHER", 3) - count("ALL_GATHER", 2) == 4 + 2
    assert count("ALL_REDUCE", 3) == 0


@pytest.mark.parametrize(
    ("style", "per_block"),
    [
        ("megatron", {("ALL_REDUCE", "hidden"): 2}),
        ("row", {("ALL_REDUCE", "ffn"): 2, ("ALL_REDUCE", "hidden"): 2}),
        (
            "column",
            {
                ("ALL_GATHER", "ffn"): 1,
                ("REDUCE_SCATTER", "ffn"): 1,
                ("ALL_GATHER", "hidden"): 1,
                ("REDUCE_SCATTER", "hidden"): 1,
            },
        ),
    ],
)
def test_three_ways_to_split_a_perceptron(style, per_block):
    def count(layers: int) -> Counter[tuple[str, int]]:
        plan = make(model="mlp", ffn_hidden=96, tensor=2, tensor_style=style, layers=layers)
        return sent(plan)

    more = count(5)
    more.subtract(count(4))
    names = {B * S * H * 2: "hidden", B * S * 96 * 2: "ffn"}
    assert {(op, names[nbytes]): n for (op, nbytes), n in more.items() if n} == per_block


def held_after_forward(experiment: Experiment) -> int:
    """Activations on a rank when it has computed one microbatch."""
    sizes: dict[str, int] = {}
    for instruction in lower(experiment).ranks[0]:
        if instruction.task.op is Op.BACKWARD:
            break
        sizes |= {tensor.name: tensor.nbytes for tensor in instruction.task.allocates}
        for name in instruction.task.frees:
            del sizes[name]
    return sum(sizes.values())


@pytest.mark.parametrize("model", ["gpt", "bert"])
@pytest.mark.parametrize(
    ("tensor", "shared"), [(1, False), (2, False), (4, False), (2, True), (4, True)]
)
def test_activations_of_a_layer_are_korthikantis(model, tensor, shared):
    """Korthikanti et al. 2022, table 2, without dropout (its masks, 2sbh, and of attention
    the mask and output, 3as/h): sbh(32 + 2as/h), of which 8 are not split by tensor
    parallelism alone. Norms also keep mean and deviation, two fp32 each a token."""
    plan = {"model": model, "tensor": tensor, "sequence_parallel": shared}
    found = held_after_forward(make(layers=3, **plan)) - held_after_forward(make(layers=2, **plan))
    copied, split = (0, 32) if shared else (8, 24)
    statistics = 2 * 2 * 4 * B * S
    expected = S * B * H * (copied + split / tensor + 2 * A * S / H / tensor)
    assert found == expected + statistics / (tensor if shared else 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tensor": 3}, "parallel.tensor = 3: does not divide workload.hidden = 32; .* works: 2"),
        ({"tensor": 16}, "parallel.tensor = 16: does not divide workload.heads = 8; .* works: 8"),
        (
            {"tensor": 5, "model": "mlp", "ffn_hidden": 15},
            "parallel.tensor = 5: does not divide workload.hidden = 32; nearest that works: 1",
        ),
        ({"sequence_parallel": True}, "parallel.sequence_parallel = true: .*; allowed: false"),
        (
            {"sequence_parallel": True, "tensor": 2, "model": "mlp"},
            "parallel.sequence_parallel = true: .*; allowed: false",
        ),
        ({"tensor_style": "row"}, "parallel.tensor_style = 'row': only for workload.model = 'mlp'"),
        (
            {"tensor_style": "row", "model": "mlp"},
            "parallel.tensor_style = 'row': nothing to split with parallel.tensor = 1; allowed: "
            "with parallel.tensor > 1",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(keys, message):
    with pytest.raises(ExperimentError, match=message):
        make(**keys)


def test_models_without_parts_are_refused():
    with pytest.raises(ExperimentError, match=r"parallel.tensor = 2: resnet50 is not split"):
        parse({"workload": {"model": "resnet50"}, "parallel": {"tensor": 2}})
