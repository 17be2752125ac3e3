"""Layers that are split over ranks train the model that one process trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from runtime.models import MODELS, PARTS
from simulator.experiment import Experiment
from simulator.strategies import mesh_of
from simulator.workloads import describe

TOLERANCE = 1e-10
CPU = torch.device("cpu")

ALONE = [
    {"tensor": tensor, "model": model, **more}
    for tensor in (2, 4)
    for model in ("gpt", "bert")
    for more in ({}, {"sequence_parallel": True, "microbatches": 2})
] + [
    {"tensor": tensor, "model": "mlp", "tensor_style": style, "layers": 3}
    for tensor in (2, 4)
    for style in ("column", "row", "megatron")
]
SHARED = {"sequence_parallel": True}
PAIRS = [
    {"tensor": 2, "pipeline": 2, "microbatches": 3},
    {"tensor": 2, "pipeline": 2, "microbatches": 3, "model": "bert", **SHARED},
    {"tensor": 2, "pipeline": 2, "microbatches": 2, "schedule": "zb-h1", **SHARED},
    {
        "tensor": 2,
        "pipeline": 2,
        "microbatches": 3,
        "schedule": "zb-v",
        "virtual_stages": 2,
        "layers": 4,
    },
    {
        "tensor": 2,
        "pipeline": 2,
        "microbatches": 3,
        "schedule": "zb-v",
        "virtual_stages": 2,
        "model": "bert",
        "layers": 4,
        **SHARED,
    },
    {"tensor": 2, "pipeline": 2, "microbatches": 2, "model": "mlp", "tensor_style": "column"},
    {
        "tensor": 2,
        "pipeline": 2,
        "microbatches": 4,
        "layers": 4,
        "model": "mlp",
        "tensor_style": "row",
        "schedule": "dualpipe-v",
        "virtual_stages": 2,
    },
    {"tensor": 2, "data": 2, "bucket_mb": 0.001},
    {"tensor": 2, "data": 2, "model": "bert", "bucket_mb": 0.002, "microbatches": 2, **SHARED},
    {"tensor": 2, "data": 2, "model": "mlp", "tensor_style": "column", "bucket_mb": 0.001},
    {"tensor": 2, "data": 2, "optimizer": "adam", "clip_norm": 0.5, **SHARED},
    {"tensor": 2, "pipeline": 2, "optimizer": "momentum", "clip_norm": 0.5, "microbatches": 2},
    {"tensor": 2, "data": 2, "zero": 1, "optimizer": "adam", "clip_norm": 0.5, **SHARED},
    {"tensor": 2, "data": 2, "zero": 3, "bucket_mb": 0.002, "clip_norm": 0.5, "microbatches": 2},
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def unsplit(experiment: Experiment) -> Experiment:
    """The same training on one rank."""
    data = experiment.model_dump(exclude_unset=True)
    kept = {"data", "microbatches"}
    data["parallel"] = {key: n for key, n in data["parallel"].items() if key in kept}
    return type(experiment).model_validate(data)


def share(experiment: Experiment, rank: int, tensors: Any) -> Any:
    """What `rank` has of tensors of the whole model."""
    place, found = mesh_of(experiment).coordinate(rank), {}
    for index, layer in enumerate(describe(experiment)):
        whole, part = layer.whole
        if not part:
            continue
        model = experiment.workload.model
        module = MODELS[model](experiment, whole).double()
        for name, parameter in module.named_parameters():
            parameter.data.copy_(tensors[whole, name])
        mine = PARTS[model](module, part, experiment, place)
        for name, parameter in mine.named_parameters():
            found[index, name] = parameter.data
    return found


def check(run, reference, keys):
    ran = run(**{"layers": 2, "hidden": 16, "heads": 4, "iterations": 3, **keys})
    parameters, gradients, losses = reference(unsplit(ran.experiment))
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    seen = set()
    for rank, held in enumerate(ran.shares):
        for mine, whole in zip(held, (parameters, gradients), strict=True):
            expected = share(ran.experiment, rank, whole)
            assert mine
            for key, value in mine.items():
                layer = describe(ran.experiment)[key[0]].whole[0]
                scale = max(v.abs().max().item() for (i, _), v in whole.items() if i == layer)
                assert scale > 0, f"{key} says nothing"
                error = (value - expected[key]).abs().max().item() / scale
                assert error <= TOLERANCE, f"rank {rank}: {key}: {error:.3g}"
            seen |= mine.keys()
    assert seen == share(ran.experiment, 0, parameters).keys()
    norm = sum(float(value.square().sum()) for value in parameters.values()) ** 0.5
    assert ran.measurement.parameters_norm == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("keys", ALONE, ids=name_of)
def test_split_over_ranks_it_is_the_model_of_one_process(run, reference, keys):
    check(run, reference, keys)


@pytest.mark.parametrize("keys", PAIRS, ids=name_of)
def test_split_over_ranks_and_in_another_way_too(run, reference, keys):
    check(run, reference, keys)
