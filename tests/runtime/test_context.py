"""A sequence that is split over ranks trains the model that one process trains."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.models import MODELS, PARTS
from simulator.experiment import Experiment
from simulator.strategies import mesh_of
from simulator.workloads import describe

TOLERANCE = 1e-10

RING, ULYSSES = {"context_style": "ring"}, {"context_style": "ulysses"}
ALONE = [
    {"model": model, "context": context, **style}
    for model in ("gpt", "bert")
    for context in (2, 4)
    for style in (RING, ULYSSES)
]
PAIRS = [
    {"context": 2, "microbatches": 3, **RING},
    {"context": 4, "optimizer": "adam", "clip_norm": 0.5, "microbatches": 2, **RING},
    {"context": 2, "optimizer": "adam", "clip_norm": 0.5, "data": 2, **ULYSSES},
    {"context": 2, "data": 2, "zero": 1, "optimizer": "adam", "clip_norm": 0.5, **RING},
    {"context": 2, "data": 2, "zero": 3, "bucket_mb": 0.002, "microbatches": 2, **ULYSSES},
] + [
    {"context": 2, **more, **style}
    for style in (RING, ULYSSES)
    for more in (
        {"tensor": 2},
        {"tensor": 2, "sequence_parallel": True, "microbatches": 2, "model": "bert"},
        {"tensor": 2, "sequence_parallel": True, "optimizer": "momentum", "clip_norm": 0.5},
        {"pipeline": 2, "microbatches": 3},
        {"pipeline": 2, "microbatches": 3, "model": "bert", "schedule": "zb-h1"},
        {"pipeline": 2, "microbatches": 3, "schedule": "zb-h1", "clip_norm": 0.5},
        {"data": 2, "bucket_mb": 0.002, "microbatches": 2},
    )
]


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def unsplit(experiment: Experiment) -> Experiment:
    """The same training on one rank."""
    data = experiment.model_dump(exclude_unset=True)
    keep = ("data", "microbatches")
    data["parallel"] = {key: v for key, v in data["parallel"].items() if key in keep}
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
def test_split_sequences_train_the_model_of_one_process(run, reference, keys):
    check(run, reference, keys)


@pytest.mark.parametrize("keys", PAIRS, ids=name_of)
def test_split_sequences_and_split_in_another_way_too(run, reference, keys):
    check(run, reference, keys)
