"""Context parallelism: what is sent, what overlaps, that work is balanced, what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from simulator.cluster.catalogue import load_preset
from simulator.engine.costs import costs_of
from simulator.engine.engine import simulate
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.program.operations import COLLECTIVES
from simulator.strategies.lowering import lower
from simulator.workloads.describe import describe, describe_whole

B, S, H, A = 2, 64, 32, 8


def make(**keys: Any) -> Experiment:
    shape = {"layers": 2, "hidden": H, "heads": A, "sequence": S, "dtype": "bf16"}
    workload = shape | {key: keys.pop(key) for key in ("model", "layers", *shape) if key in keys}
    microbatches = keys.get("microbatches", 1) * keys.get("data", 1)
    return parse({"workload": workload | {"global_batch": B * microbatches}, "parallel": keys})


def sent(experiment: Experiment, rank: int = 0) -> Counter[tuple[str, int]]:
    """How many collectives of each operation and size a rank takes part in."""
    tasks = (i.task for i in lower(experiment).ranks[rank])
    return Counter((t.op.value, t.nbytes) for t in tasks if t.stream.axis == "context")


@pytest.mark.parametrize("model", ["gpt", "bert"])
@pytest.mark.parametrize(("context", "tensor", "microbatches"), [(2, 1, 1), (4, 2, 3), (8, 1, 2)])
def test_a_ring_sends_keys_and_values_to_all_but_one(model, context, tensor, microbatches):
    """K and V of a rank's tokens, c - 1 times on the way forward; their gradients as often on
    the way back (Liu et al. 2023, section 3)."""
    plan = make(model=model, context=context, tensor=tensor, microbatches=microbatches)
    keys_and_values = 2 * B * (S // context) * (H // tensor) * 2
    times = 2 * microbatches * (context - 1)  # two layers
    assert sent(plan) == {
        ("SHIFT", keys_and_values): times,
        ("SHIFT_BACK", keys_and_values): times,
    }


@pytest.mark.parametrize("model", ["gpt", "bert"])
@pytest.mark.parametrize(("context", "tensor", "microbatches"), [(2, 1, 1), (4, 2, 3), (8, 1, 2)])
def test_ulysses_sends_q_k_v_and_the_output_to_all(model, context, tensor, microbatches):
    """Of a rank's tokens, of which all but its own part leave it; their gradients on the way
    back (Jacobs et al. 2023, section 3.2)."""
    plan = make(
        model=model,
        context=context,
        context_style="ulysses",
        tensor=tensor,
        microbatches=microbatches,
    )
    output = B * (S // context) * (H // tensor) * 2
    times = 2 * 2 * microbatches  # two layers, forward and back
    assert sent(plan) == {("ALL_TO_ALL", 3 * output): times, ("ALL_TO_ALL", output): times}


@pytest.mark.parametrize("style", ["ring", "ulysses"])
def test_nothing_else_is_sent_but_gradients(style):
    instructions = lower(make(context=4, context_style=style)).ranks[0]
    others = {
        i.task.name
        for i in instructions
        if i.task.op in COLLECTIVES and i.task.stream.axis != "context"
    }
    assert others == {"REDUCE_GRAD"}


@pytest.mark.parametrize("context", [2, 4, 8])
def test_keys_travel_while_a_rank_attends_to_those_it_has(context):
    """Every shift starts with the block of a step and ends before it, forward and back."""
    plan = make(context=context, layers=1, hidden=1024, heads=8, sequence=8192, microbatches=2)
    program = lower(plan)
    timeline = simulate(program, costs_of(program, plan, load_preset("dgx-h100")))
    of_first = timeline.rank == 0
    computes = np.flatnonzero(of_first & timeline.is_compute)
    shifts = np.flatnonzero(of_first & timeline.of_kind(lambda kind: kind.stream.axis == "context"))
    assert len(shifts) == 2 * 2 * (context - 1)
    blocks = [i for i, layer in enumerate(describe(plan)) if "ring-block" in layer.kind]
    for shift in shifts:
        (block,) = computes[timeline.start[computes] == timeline.start[shift]]
        first, last = program.ranks[0][block].task.layers
        assert set(blocks) & set(range(first, last))
        assert timeline.end[shift] < timeline.end[block]


def test_a_causal_ring_has_about_half_the_attention_of_a_full_one():
    """Whatever lies in the future of all queries of a step is left out: with c ranks,
    (c + 1) ÷ 2c of all pairs, which masks leave 1 ÷ 2 of."""

    def pairs(model: str, context: int) -> float:
        layers = describe(make(model=model, context=context, layers=1))
        blocks = [layer for layer in layers if "ring-block" in layer.kind]
        assert len(blocks) == context
        return sum(layer.forward_flops for layer in blocks) * context

    whole = 2 * 2 * B * A * S * S * (H // A)
    for context in (2, 4, 8):
        assert pairs("bert", context) == whole
        assert pairs("gpt", context) == whole * (context + 1) / (2 * context)


@pytest.mark.parametrize("style", ["ring", "ulysses"])
def test_ranks_share_the_work_of_all_tokens(style):
    """Besides the attention of a causal ring, which is less, and bert's masked tokens."""
    plan = make(context=4, context_style=style)
    whole = sum(layer.flops for layer in describe_whole(plan))
    blocks = [layer for layer in describe(plan) if "ring-block" in layer.kind]
    left_out = sum(b.flops for b in blocks) * 4 * (1 - 8 / 5)
    assert sum(layer.flops for layer in describe(plan)) * 4 == pytest.approx(whole + left_out)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"context": 3}, "parallel.context = 3: does not divide workload.sequence ÷ 2 (two chunks"
         " a rank) = 32; nearest that works: 2"),
        ({"context": 3, "model": "bert"}, "parallel.context = 3: does not divide "
         "workload.sequence = 64; nearest that works: 2"),
        ({"context": 2, "sequence": 7}, "parallel.context = 2: every rank has two chunks of a "
         "sequence; workload.sequence = 7 is odd; nearest that works: 1"),
        ({"context": 16, "context_style": "ulysses"}, "parallel.context = 16: does not divide "
         "workload.heads = 8; nearest that works: 8"),
        ({"context": 8, "tensor": 2, "context_style": "ulysses"}, "parallel.context = 8: does not "
         "divide workload.heads ÷ tensor = 4; nearest that works: 4"),
        ({"context": 2, "model": "mlp"}, "parallel.context = 2: attention of mlp is not split over "
         "ranks; allowed: 1, or one of the models gpt, llama, moe-gpt, bert"),
        ({"context_style": "ring"}, "parallel.context_style = 'ring': nothing to split with "
         "parallel.context = 1; allowed: with parallel.context > 1"),
        ({"context": 2, "context_style": "star"}, "parallel.context_style = 'star': allowed: "
         "'ring' or 'ulysses'"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(keys, message):
    with pytest.raises(ExperimentError) as error:
        make(**keys)
    assert str(error.value) == message
