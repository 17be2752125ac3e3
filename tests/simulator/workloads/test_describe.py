"""Layers of the models against the formulas of the papers."""

from __future__ import annotations

import pytest

from simulator import Experiment, parse
from simulator.analysis.metrics import model_flops
from simulator.workloads.describe import MODELS, Layer, describe
from simulator.workloads.layer import linear

SIZES = [
    {"layers": 1, "hidden": 8, "heads": 2, "sequence": 4, "vocab": 256},
    {"layers": 3, "hidden": 96, "heads": 12, "sequence": 64, "vocab": 1000},
    {"layers": 2, "hidden": 64, "heads": 1, "sequence": 128, "vocab": 50257},
]


def experiment(model: str, size: dict[str, int], **workload: object) -> Experiment:
    return parse({"workload": {"model": model, **size, **workload}})


@pytest.mark.parametrize("size", SIZES)
def test_gpt_parameters(size: dict[str, int]) -> None:
    """12h² + 13h a block, embeddings, a norm and an output projection of its own."""
    found = sum(layer.parameters for layer in describe(experiment("gpt", size)))
    count, h, s, v = (size[key] for key in ("layers", "hidden", "sequence", "vocab"))
    assert found == count * (12 * h * h + 13 * h) + (v + s) * h + 2 * h + h * v


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 6])
def test_gpt_flops(size: dict[str, int], batch: int) -> None:
    """72·B·s·l·h²·(1 + s/6h + V/12lh): Narayanan et al. 2021, appendix, less recomputation."""
    plan = experiment("gpt", size, global_batch=batch)
    count, h, s, v = (size[key] for key in ("layers", "hidden", "sequence", "vocab"))
    expected = 72 * batch * s * count * h**2 * (1 + s / (6 * h) + v / (12 * count * h))
    assert model_flops(plan) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (8, 2)])
def test_moe_gpt_is_gpt_with_more_mlps(size: dict[str, int], experts: int, top_k: int) -> None:
    """With as many slots as choices it computes `top_k` MLPs a token and holds `experts`."""
    mixture = experiment("moe-gpt", size, experts=experts, top_k=top_k, capacity_factor=1.0)
    dense = experiment("gpt", size)
    count, h, tokens = size["layers"], size["hidden"], 4 * size["sequence"]
    mlp = 8 * h * h + 5 * h
    parameters, flops = (
        [sum(getattr(layer, key) for layer in describe(plan)) for plan in (mixture, dense)]
        for key in ("parameters", "flops")
    )
    assert parameters[0] - parameters[1] == count * ((experts - 1) * mlp + h * experts)
    mlps = 2 * (top_k - 1) * linear(tokens, h, 4 * h).flops
    expected = 3 * (mlps + linear(tokens, h, experts).flops)
    assert flops[0] - flops[1] == count * expected
    attention = [plan[1] for plan in map(describe, (mixture, dense))]
    assert attention[0] == attention[1]


def test_flops_are_of_the_whole_batch_however_it_is_split() -> None:
    size = SIZES[1]
    flops = {
        model_flops(
            parse(
                {
                    "workload": {"model": "gpt", **size, "global_batch": 24},
                    "parallel": {"data": data, "microbatches": m},
                }
            )
        )
        for data, m in [(1, 1), (2, 3), (4, 6), (1, 24)]
    }
    assert len(flops) == 1


@pytest.mark.parametrize("size", SIZES)
def test_mlp_by_hand(size: dict[str, int]) -> None:
    plan = experiment("mlp", size, global_batch=3)
    first, *rest, loss = describe(plan)
    h, tokens = size["hidden"], 3 * size["sequence"]
    assert len(rest) == size["layers"] - 1
    assert first.parameters == 8 * h * h + 5 * h
    assert first.forward_flops == first.backward_weight_flops == 2 * linear(tokens, h, 4 * h).flops
    assert first.backward_input_flops == linear(tokens, h, 4 * h).flops  # none for the batch itself
    for block in rest:
        assert block.parameters == first.parameters
        assert block.backward_input_flops == block.forward_flops == first.forward_flops
        assert block.kind != first.kind
    assert (loss.parameters, loss.flops, loss.output_bytes) == (0, 0, 0)


@pytest.mark.parametrize("model", ["mlp", "gpt", "moe-gpt"])
def test_where_a_stage_may_begin(model: str) -> None:
    """As many places as blocks: never inside a block, before the loss, or after the embedding."""
    layers = describe(experiment(model, SIZES[1]))
    places = [index for index, layer in enumerate(layers) if layer.starts_block]
    assert places == {"mlp": [0, 1, 2], "gpt": [0, 3, 5], "moe-gpt": [0, 3, 5]}[model]


@pytest.mark.parametrize("model", ["mlp", "gpt", "moe-gpt"])
def test_activations_grow_with_the_batch_and_the_width_of_a_value(model: str) -> None:
    def bytes_of(layers: list[Layer]) -> list[int]:
        return [layer.output_bytes for layer in layers]

    size = SIZES[1]
    one = describe(experiment(model, size, global_batch=1))
    two = describe(experiment(model, size, global_batch=2))
    half = describe(experiment(model, size, global_batch=1, dtype="bf16"))
    assert bytes_of(two) == [2 * nbytes for nbytes in bytes_of(one)]
    assert bytes_of(one) == [2 * nbytes for nbytes in bytes_of(half)]
    hidden = size["sequence"] * size["hidden"] * 4
    assert bytes_of(one) == [hidden] * (len(one) - 1) + [0]
    assert all(a.saved_bytes < b.saved_bytes for a, b in zip(one, two, strict=True))


def test_attention_keeps_a_score_for_every_pair_of_positions() -> None:
    few, many = (
        describe(experiment("gpt", {**SIZES[1], "heads": heads}, global_batch=5))[1]
        for heads in (4, 12)
    )
    assert many.saved_bytes - few.saved_bytes == 5 * (12 - 4) * 64 * 64 * 4


def test_unit_is_its_seconds() -> None:
    plan = parse(
        {
            "workload": {
                "model": "unit",
                "forward": 1.0,
                "backward_input": 2.0,
                "backward_weight": 3.0,
            },
            "parallel": {"pipeline": 3},
        }
    )
    layers = describe(plan)
    assert [layer.seconds for layer in layers] == [(1.0, 2.0, 3.0)] * 3
    assert all(layer.parameters == 0 and layer.starts_block for layer in layers)


@pytest.mark.parametrize("model", MODELS)
def test_layers_of_one_kind_are_the_same_work(model: str) -> None:
    by_kind: dict[str, Layer] = {}
    for layer in describe(parse({"workload": {"model": model}})):
        same = by_kind.setdefault(layer.kind, layer)
        assert (layer.flops, layer.moved_bytes, layer.parameters) == (
            same.flops,
            same.moved_bytes,
            same.parameters,
        )


@pytest.mark.parametrize("change", [{"hidden": 192}, {"sequence": 32}, {"global_batch": 9}])
@pytest.mark.parametrize("model", ["mlp", "gpt", "moe-gpt"])
def test_other_sizes_are_other_kinds(model: str, change: dict[str, int]) -> None:
    """A profile is looked up by kind: two sizes must never share one."""
    size = {**SIZES[1], "global_batch": 2}
    kinds = {layer.kind for layer in describe(experiment(model, size))}
    other = {layer.kind for layer in describe(experiment(model, size | change))}
    assert not kinds & other


@pytest.mark.parametrize("change", [{"experts": 5}, {"top_k": 1}, {"capacity_factor": 1.5}])
def test_other_experts_are_other_kinds(change: dict[str, float]) -> None:
    mixtures = [describe(experiment("moe-gpt", SIZES[1], **keys))[2] for keys in ({}, change)]
    assert mixtures[0].kind != mixtures[1].kind
