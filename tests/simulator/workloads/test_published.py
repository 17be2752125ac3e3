"""Published sizes of the named models, and the keys and values they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import load, parse
from simulator.strategies.lowering import lower
from simulator.strategies.stages.partition import split_stages
from simulator.workloads.describe import Layer, describe


def layers_of(model: str, **keys: Any) -> list[Layer]:
    return describe(parse({"workload": {"model": model, "global_batch": 1, **keys}}))


@pytest.mark.parametrize(
    ("model", "keys", "count"),
    [
        ("alexnet", {}, 61_100_840),
        ("vgg16", {}, 138_357_544),
        ("resnet50", {}, 25_557_032),
        # Hugging Face's BertForMaskedLM (109,514,298 and 335,174,458) plus the decoder's
        # weight, which is tied there: 30,522 × hidden.
        ("bert", {"size": "base"}, 109_514_298 + 30_522 * 768),
        ("bert", {"size": "large"}, 335_174_458 + 30_522 * 1024),
    ],
)
def test_published_parameter_counts(model: str, keys: dict[str, Any], count: int) -> None:
    assert sum(layer.parameters for layer in layers_of(model, **keys)) == count


def test_bert_without_its_head_is_the_published_encoder() -> None:
    """BertModel has 109,482,240 and 335,141,888 parameters with the pooler."""
    for size, count in (("base", 109_482_240 - 590_592), ("large", 335_141_888 - 1_049_600)):
        *encoder, _ = layers_of("bert", size=size)
        assert sum(layer.parameters for layer in encoder) == count


@pytest.mark.parametrize(
    ("model", "count", "giga_macs"),
    [("alexnet", 8, 0.71), ("vgg16", 16, 15.47), ("resnet50", 18, 4.09)],
)
def test_published_multiply_adds(model: str, count: int, giga_macs: float) -> None:
    """torchvision's model table, for one image."""
    layers = layers_of(model)
    assert len(layers) == count
    found = sum(layer.forward_flops for layer in layers) / 2e9
    assert found == pytest.approx(giga_macs, abs=0.006)


@pytest.mark.parametrize("model", ["alexnet", "vgg16", "resnet50"])
def test_everything_but_parameters_grows_with_the_batch(model: str) -> None:
    for one, four in zip(layers_of(model), layers_of(model, global_batch=4), strict=True):
        assert four.flops == 4 * one.flops
        assert four.output_bytes == 4 * one.output_bytes
        assert four.parameters == one.parameters
        assert 3.4 * one.saved_bytes < four.saved_bytes <= 4 * one.saved_bytes
        assert four.kind != one.kind


def test_layers_differ_by_orders_of_magnitude() -> None:
    for model in ("alexnet", "vgg16"):
        layers = layers_of(model)
        for least, sizes in (
            (1000, [layer.parameters for layer in layers]),
            (50, [layer.flops for layer in layers]),
        ):
            assert max(sizes) > least * min(sizes)
        outputs = [layer.output_bytes for layer in layers[:-1]]
        assert max(outputs) > 10 * min(outputs)


@pytest.mark.parametrize(("model", "blocks"), [("alexnet", 8), ("vgg16", 16), ("resnet50", 18)])
def test_a_stage_for_every_block_and_no_more(model: str, blocks: int) -> None:
    keys = {"workload": {"model": model}, "parallel": {"pipeline": blocks}}
    experiment = parse(keys)
    assert len(split_stages(describe(experiment), blocks)) == blocks
    assert lower(experiment).num_stages == blocks
    keys["parallel"] = {"pipeline": blocks + 1}
    message = f"more stages than blocks of {model} = {blocks}; allowed: 1 to {blocks}$"
    with pytest.raises(ExperimentError, match=message):
        parse(keys)


def test_bert_has_a_block_a_layer() -> None:
    layers = layers_of("bert", layers=3)
    starts = [layer.starts_block for layer in layers]
    assert starts == [True, False, False, True, False, True, False, False]
    assert len(split_stages(layers, 3)) == 3
    message = "parallel.pipeline = 4: more stages than workload.layers = 3"
    with pytest.raises(ExperimentError, match=message):
        parse({"workload": {"model": "bert", "layers": 3}, "parallel": {"pipeline": 4}})


def test_a_size_stands_for_all_others() -> None:
    w = parse({"workload": {"model": "bert", "size": "large"}}).workload
    shape = (w.layers, w.hidden, w.heads, w.sequence, w.vocab, w.ffn)
    assert shape == (24, 1024, 16, 512, 30522, 4096)
    spelled = parse({"workload": {"model": "bert", "size": "large", "layers": 24}})
    assert spelled.workload == w


def test_an_experiment_survives_its_own_dump() -> None:
    """As ranks get it from the process that starts them."""
    for workload in ({"model": "bert", "size": "base"}, {"model": "vgg16", "image_size": 64}):
        experiment = parse({"workload": workload})
        assert parse(experiment.model_dump(exclude_unset=True)) == experiment


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (
            {"model": "alexnet", "image_size": 62},
            "workload.image_size = 62: too small for alexnet; allowed: 63 or more",
        ),
        (
            {"model": "vgg16", "image_size": 31},
            "workload.image_size = 31: too small for vgg16; allowed: 32 or more",
        ),
        (
            {"model": "resnet50", "image_size": 32, "global_batch": 1},
            "workload.image_size = 32: too small for resnet50 with one image a microbatch; "
            "allowed: 33 or more",
        ),
        (
            {"model": "alexnet", "size": "base"},
            "workload.model = 'alexnet': workload.size = 'bert-base' is a bert; give one of them",
        ),
        (
            {"model": "gpt", "image_size": 64},
            "workload.image_size = 64: only for workload.model = 'alexnet' or 'resnet50' or "
            "'vgg16'",
        ),
        (
            {"model": "bert", "classes": 10},
            "workload.classes = 10: only for workload.model = 'alexnet' or 'resnet50' or 'vgg16'",
        ),
        (
            {"model": "resnet50", "layers": 101},
            "workload.layers = 101: only for workload.model = 'bert' or 'gpt' or 'llama' or 'mlp' "
            "or 'moe-gpt'",
        ),
        (
            {"model": "vgg16", "forward": 0.1},
            "workload.forward = 0.1: only for workload.model = 'unit'",
        ),
        (
            {"model": "vgg16", "classes": 0},
            "workload.classes = 0: allowed: 1 or more",
        ),
        (
            {"model": "bert", "heads": 3, "hidden": 16},
            "workload.heads = 3: must divide workload.hidden = 16; nearest that works: 2",
        ),
        (
            {"model": "bert", "vocab": 9},
            "workload.vocab = 9: text is read as bytes; allowed: 256 or more",
        ),
    ],
)
def test_refused_in_one_line(workload: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        parse({"workload": workload})
    assert str(error.value) == message


def test_sizes_that_are_just_allowed_have_outputs() -> None:
    for model, size, batch in (("alexnet", 63, 1), ("vgg16", 32, 1), ("resnet50", 1, 2)):
        layers = layers_of(model, image_size=size, global_batch=batch)
        assert all(min(layer.output_shape) > 0 for layer in layers[:-1])
    assert layers_of("resnet50", image_size=33)[-2].output_shape == (1, 2048, 2, 2)


@pytest.mark.parametrize("model", ["alexnet", "vgg16", "resnet50", "bert"])
def test_the_built_in_experiment_with_another_model(model: str) -> None:
    """Its gpt sizes are not mixed into a model that has none."""
    experiment = load(None, [f"workload.model={model}"])
    assert (experiment.workload.model, experiment.parallel.pipeline) == (model, 2)
    assert experiment.workload.hidden == (256 if model == "bert" else 128)
    base = load(None, ["workload.model=bert", "workload.size=base"])
    assert base.workload.hidden == 768


def test_what_throughput_counts() -> None:
    def unit(**workload: Any) -> int:
        return parse({"workload": workload}).workload.tokens_per_sample

    assert (unit(model="vgg16"), unit(sequence=9), unit(model="bert", size="base")) == (1, 9, 512)
    assert Experiment().workload.tokens_per_sample == 64
