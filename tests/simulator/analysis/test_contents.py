"""What each rank has of the model, and what its peak of memory consists of."""

from __future__ import annotations

import pytest

from simulator import Experiment, Prediction, load, predict
from simulator.analysis.contents import contents_of_ranks, describe_stages, model_parameters

GPT3 = ["workload.model=gpt", "workload.layers=96", "workload.hidden=12288", "workload.heads=96",
        "workload.sequence=2048", "workload.vocab=50257"]  # fmt: skip
SMALL = [
    "workload.layers=30",
    "workload.dtype=fp32",
    "cluster.preset=dgx-h100",
]


def gpt3(*plan: str) -> Experiment:
    return load(None, [*GPT3, *plan])


def test_gpt_3_has_as_many_parameters_as_its_paper_says() -> None:
    """174.6 billion (Brown et al. 2020, table 2.1), where the output embedding is the input's;
    here it is not tied, and has 50257 × 12288 of its own."""
    experiment = gpt3("parallel.pipeline=1", "parallel.microbatches=1")
    untied = 50257 * 12288
    assert model_parameters(experiment) - untied == pytest.approx(174.6e9, rel=1e-4)
    h, layers = 12288, 96
    blocks = layers * (12 * h * h + 13 * h)  # Narayanan et al. 2021, equation 2, and its biases
    assert model_parameters(experiment) == blocks + untied + (50257 + 2048) * h + 2 * h


@pytest.mark.parametrize("virtual", [1, 2])
def test_all_stages_together_are_the_model(virtual: int) -> None:
    plan = [f"parallel.virtual_stages={virtual}", "parallel.schedule=interleaved-1f1b"]
    experiment = gpt3(
        "parallel.pipeline=4", "parallel.microbatches=4", *(plan if virtual > 1 else [])
    )
    ranks = contents_of_ranks(experiment)
    stages = sorted((stage for rank in ranks for stage in rank), key=lambda stage: stage.stage)
    assert [len(rank) for rank in ranks] == [virtual] * 4
    assert sum(stage.parameters for stage in stages) == model_parameters(experiment)
    blocks = [n for s in stages for n in range(s.first_block, s.last_block + 1)]
    assert blocks == list(range(96))
    assert [stage.embedding for stage in stages] == [True] + [False] * (4 * virtual - 1)
    assert [stage.head for stage in stages] == [False] * (4 * virtual - 1) + [True]


def test_blocks_are_those_of_the_split() -> None:
    experiment = load(None, [*SMALL, "parallel.pipeline=4", "parallel.split=[7, 8, 9, 6]"])
    texts = [describe_stages(rank) for rank in contents_of_ranks(experiment)]
    assert texts == ["embedding, blocks 0–6", "blocks 7–14", "blocks 15–23", "blocks 24–29, head"]


def test_tensor_ranks_have_a_part_of_each_matrix() -> None:
    plan = ["workload.vocab=51200", "parallel.pipeline=2"]
    whole, split = (contents_of_ranks(gpt3(*plan, f"parallel.tensor={t}")) for t in (1, 8))
    for (before,), (after,) in zip(whole, split, strict=True):
        assert before.parameters / 8 < after.parameters < 1.01 * before.parameters / 8


def test_other_models_have_blocks_only() -> None:
    for keys, texts in (
        (["workload.model=mlp", "workload.layers=4"], ["blocks 0–1", "blocks 2–3"]),
        (["workload.model=unit"], ["block 0", "block 1"]),
    ):
        found = contents_of_ranks(load(None, [*keys, "parallel.pipeline=2"]))
        assert [describe_stages(rank) for rank in found] == texts


def peaks(*plan: str) -> Prediction:
    return predict(load(None, [*SMALL, "parallel.microbatches=4", *plan]))


@pytest.mark.parametrize(
    "plan",
    [
        ["parallel.pipeline=4"],
        ["parallel.data=4", "parallel.pipeline=1", "parallel.zero=3"],
        ["parallel.data=2", "parallel.pipeline=2", "parallel.zero=2", "workload.optimizer=adam"],
        ["parallel.pipeline=2", "parallel.schedule=pipedream", "workload.optimizer=momentum"],
        ["parallel.pipeline=2", "parallel.tensor=2", "parallel.recompute=full"],
    ],
)
def test_the_parts_add_up_to_the_peak(plan: list[str]) -> None:
    for rank in peaks(*plan).ranks:
        assert rank.peak_memory_parts is not None
        assert sum(rank.peak_memory_parts) == rank.peak_memory_bytes
        assert min(rank.peak_memory_parts) >= 0
        assert rank.peak_memory_parts.activations > 0


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_zero_shards_optimizer_then_gradients_then_parameters(zero: int) -> None:
    """Rajbhandari et al. 2020, figure 1: of 4, 4 and 8 bytes a parameter, one by one a quarter."""
    plan = ["parallel.data=4", "parallel.pipeline=1", f"parallel.zero={zero}"]
    result = peaks(*plan, "workload.optimizer=adam")
    whole = result.metrics.parameters
    for rank in result.ranks:
        parts = rank.peak_memory_parts
        assert parts is not None
        assert rank.parameters == whole
        found = parts.optimizer, parts.gradients, parts.parameters
        for least, (part, each) in enumerate(zip(found, (8, 4, 4), strict=True), start=1):
            shares = 4 if zero >= least else 1
            assert part == pytest.approx(whole * each / shares, rel=1e-3)
        assert (parts.buffers > 0) == (zero >= 2)


def test_versions_that_are_kept_are_parameters() -> None:
    plan = ["parallel.pipeline=2", "parallel.schedule=pipedream"]
    first, last = peaks(*plan).ranks
    assert first.peak_memory_parts is not None
    assert last.peak_memory_parts is not None
    assert first.peak_memory_parts.parameters > 1.5 * 4 * first.parameters
    assert last.peak_memory_parts.parameters == 4 * last.parameters
