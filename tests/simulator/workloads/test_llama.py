"""Llama's blocks in closed form, whole and split, whatever the plan."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.analysis.contents import model_parameters
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.operations import Op
from simulator.strategies.lowering import lower
from simulator.strategies.schedules.registry import SCHEDULES
from simulator.workloads.describe import describe

TINY = {"model": "llama", "layers": 4, "hidden": 32, "heads": 8, "ffn_hidden": 48, "vocab": 256}


def make(parallel=None, **workload):
    return parse({"workload": TINY | workload, "parallel": parallel or {}})


def test_parameters_are_those_of_the_formula() -> None:
    """Llama 3 8B: 8,030,261,248, as its published weights have."""
    sizes = {"hidden": 4096, "heads": 32, "ffn_hidden": 14336, "layers": 32, "vocab": 128256}
    layers = describe(make(**sizes, kv_heads=8))
    assert sum(layer.parameters for layer in layers) == 8_030_261_248


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_flops_do_not_depend_on_how_many_heads_share_keys_but_in_their_product(kv_heads) -> None:
    few, all_ = (make(kv_heads=count, sequence=64, global_batch=2) for count in (kv_heads, 8))
    tokens, saved_columns = 2 * 64, 2 * (8 - kv_heads) * 4
    less = 4 * 2.0 * tokens * 32 * saved_columns
    forward = [sum(layer.forward_flops for layer in describe(plan)) for plan in (few, all_)]
    assert forward[1] - forward[0] == less


def test_neighbours_sum_the_gradients_of_keys_that_they_share() -> None:
    """One reduction more than without: of weights of K and V, over two ranks and replicas."""
    plan = make({"tensor": 4, "data": 2, "bucket_mb": 1000.0}, kv_heads=2)
    reduced = [i.task for i in lower(plan).ranks[0] if i.task.op is Op.ALL_REDUCE]
    gradients = {task.group: task.nbytes for task in reduced if task.mnemonic == "REDUCE_GRAD"}
    keys = 4 * 32 * 2 * 4 * 4  # layers, hidden, K and V of one head of four values, fp32
    assert gradients.pop(plan.mesh.group(0, "data", "kv")) == keys
    assert list(gradients) == [plan.mesh.group(0, "data")]


@pytest.mark.parametrize(
    ("keys", "parallel", "message"),
    [
        ({"kv_heads": 3}, {}, "kv_heads = 3: must divide workload.heads = 8; allowed: 1, 2, 4, 8"),
        ({"head_dim": 5}, {}, "head_dim = 5; rotary positions turn pairs of them; allowed: an"),
        ({"heads": 12, "kv_heads": 6, "head_dim": 4}, {"tensor": 4},
         "tensor = 4: neither divides nor is a multiple of the 6 heads of keys and values"),
        ({"rope_factor": 4.0}, {}, "rope_factor = 4: workload.rope_scaling = 'none' does not"),
        ({"full_attention_every": 2}, {}, "full_attention_every = 2: no block has a window"),
        ({"window": 8}, {"context": 2}, "window = 8: a ring attends to the keys of all ranks"),
        ({"model": "gpt", "kv_heads": 2}, {}, "kv_heads = 2: only for workload.model = 'llama'"),
    ],
)  # fmt: skip
def test_what_heads_cannot_do_is_refused(keys, parallel, message) -> None:
    with pytest.raises(ExperimentError, match=r".") as error:
        make(parallel, **keys)
    assert message in str(error.value)


def test_a_window_that_hides_nothing_is_none() -> None:
    wide, none = (make({"context": 2}, window=window, sequence=64) for window in (64, None))
    assert describe(wide) == describe(none)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_plan_is_lowered_and_its_parts_add_up(data: st.DataObject) -> None:
    """Programs pass the check; parameters of all ranks, copies counted once, are the model's."""

    def draw(values):
        return data.draw(st.sampled_from(values))

    workload = {
        "kv_heads": draw([1, 2, 4, 8]),
        "bias": draw(["none", "qkv", "all"]),
        "dtype": draw(["fp32", "bf16", "fp16"]),
        "attention": draw(["unfused", "flash"]),
        "qk_norm": draw([False, True]),
        "tie_embeddings": draw([False, True]),
        "window": draw([None, 16]),
        "optimizer": draw(["sgd", "adam"]),
    }
    parallel = {
        "data": draw([1, 2]),
        "pipeline": draw([1, 2]),
        "tensor": draw([1, 2, 4, 8]),
        "context": draw([1, 2]),
        "context_style": draw(["ring", "ulysses"]),
        "schedule": draw(sorted(SCHEDULES)),
        "virtual_stages": draw([1, 2]),
        "microbatches": 4,
        "zero": draw([0, 1, 2, 3]),
        "sequence_parallel": draw([False, True]),
        "recompute": draw(["none", "selective", "full"]),
    }
    if parallel["context"] == 1:
        del parallel["context_style"]
    try:
        plan = make(parallel, **workload)
    except ExperimentError:
        assume(False)
    lower(plan)
    ends = 2 if workload["tie_embeddings"] and parallel["pipeline"] > 1 else 1
    held = -(ends - 1.0) * 256 * 32
    for layer in describe(plan):
        copies = plan.parallel.tensor if "tensor" in layer.copied_over else 1
        copies *= plan.mesh.kv if "kv" in layer.sums_over else 1
        held += layer.parameters * plan.parallel.tensor / copies
    assert held == model_parameters(plan)
