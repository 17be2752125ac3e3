"""Experts that are spread over ranks train the model that one process trains."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from runtime.models import MODELS, PARTS
from simulator.experiment import Experiment
from simulator.prediction import predict
from simulator.strategies import mesh_of
from simulator.workloads import describe

TOLERANCE = 1e-10

TINY = {"model": "moe-gpt", "layers": 2, "hidden": 16, "heads": 4, "iterations": 3}
DROPS = {"capacity_factor": 0.7}
ROOM = {"capacity_factor": 4.0}
SHARED = {"sequence_parallel": True}
PLANS = [
    {"expert": 2, **DROPS},
    {"expert": 2, **ROOM, "microbatches": 2},
    {"expert": 2, "top_k": 1, "experts": 2, "bucket_mb": 0.002},
    {"expert": 4, **DROPS, "microbatches": 2},
    {"expert": 4, **ROOM, "experts": 8, "top_k": 3},
    {"tensor": 2, **DROPS, "microbatches": 2},
    {"tensor": 4, **DROPS, **SHARED},
    {"expert": 2, "tensor": 2, **DROPS, "microbatches": 2},
    {"expert": 2, "tensor": 2, **ROOM, **SHARED, "microbatches": 2},
    {"expert": 2, "tensor": 2, **DROPS, **SHARED, "optimizer": "adam", "clip_norm": 0.5},
    {"expert": 2, "pipeline": 2, **DROPS, "microbatches": 3},
    {"expert": 2, "pipeline": 2, **DROPS, "microbatches": 3, "schedule": "zb-h1"},
    {"tensor": 2, "pipeline": 2, **DROPS, **SHARED, "microbatches": 2, "schedule": "zb-h1"},
    {"expert": 2, "pipeline": 2, **ROOM, "schedule": "zb-v", "virtual_stages": 2, "layers": 4,
     "microbatches": 3},
    {"expert": 2, "data": 2, **DROPS, "bucket_mb": 0.002, "microbatches": 2},
    {"expert": 2, "data": 2, **ROOM, "optimizer": "adam", "clip_norm": 0.5},
    {"expert": 2, "data": 2, **DROPS, "zero": 2, "optimizer": "adam", "clip_norm": 0.5},
    {"expert": 2, "tensor": 2, **ROOM, "zero": 3, "microbatches": 2},
    {"expert": 2, "pipeline": 2, **DROPS, "optimizer": "adam", "clip_norm": 0.5,
     "microbatches": 2},
]  # fmt: skip


def name_of(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.items())


def unsplit(experiment: Experiment) -> Experiment:
    """The same training on one rank, on microbatches of the same size."""
    data = experiment.model_dump(exclude_unset=True)
    for key in ("tensor", "sequence_parallel", "pipeline", "virtual_stages", "expert", "zero"):
        data["parallel"].pop(key, None)
    data["parallel"] |= {"schedule": "1f1b", "data": experiment.parallel.batch_shares}
    return type(experiment).model_validate(data)


def share(experiment: Experiment, rank: int, tensors: Any) -> Any:
    """What `rank` has of tensors of the whole model."""
    place, found = mesh_of(experiment).coordinate(rank), {}
    for index, layer in enumerate(describe(experiment)):
        whole, part = layer.whole
        if whole < 0:
            continue
        module = MODELS["moe-gpt"](experiment, whole).double()
        for name, parameter in module.named_parameters():
            parameter.data.copy_(tensors[whole, name])
        if part:
            module = PARTS["moe-gpt"](module, part, experiment, place)
        for name, parameter in module.named_parameters():
            found[index, name] = parameter.data
    return found


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_spread_over_ranks_it_is_the_model_of_one_process(run, reference, keys):
    ran = run(**{**TINY, **keys})
    parameters, gradients, losses = reference(unsplit(ran.experiment))
    assert ran.measurement.losses == pytest.approx(losses, rel=1e-12)
    assert (ran.measurement.moe["dropped_share"] > 0) == (keys.get("capacity_factor", 1.25) < 2)
    layers = describe(ran.experiment)
    for rank, held in enumerate(ran.shares):
        for mine, whole in zip(held, (parameters, gradients), strict=True):
            expected = share(ran.experiment, rank, whole)
            assert mine
            for key, value in mine.items():
                layer = layers[key[0]].whole[0]
                scale = max(v.abs().max().item() for (i, _), v in whole.items() if i == layer)
                assert scale > 0, f"{key} says nothing"
                error = (value - expected[key]).abs().max().item() / scale
                assert error <= TOLERANCE, f"rank {rank}: {key}: {error:.3g}"
    seen = {key for held in ran.shares for key in held[0]}
    assert seen == share(ran.experiment, 0, parameters).keys()
    norm = sum(float(value.square().sum()) for value in parameters.values()) ** 0.5
    assert ran.measurement.parameters_norm == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("keys", PLANS, ids=name_of)
def test_every_tensor_has_the_bytes_the_program_says(run, keys):
    ran = run(**{**TINY, **keys})
    for rank, instructions in enumerate(ran.program.ranks):
        held = ran.measurement.timeline.memory[rank].nbytes
        assert held[0] == held[-1] == sum(ran.program.resident[rank].values())
        changes = np.diff(held)
        made = [t.nbytes for i in instructions for t in i.task.allocates if t.nbytes]
        assert Counter(changes[changes > 0].tolist()) == Counter(made)
        assert Counter((-changes[changes < 0]).tolist()) == Counter(made)


# In these nothing is communicated beside a pass, so the order of all changes is certain.
@pytest.mark.parametrize(
    "keys", [k for k in PLANS if not k.keys() & {"pipeline", "sequence_parallel"}], ids=name_of
)
def test_peak_memory_is_as_predicted(run, keys):
    ran = run(**{**TINY, **keys})
    predicted = predict(ran.experiment).timeline.memory
    assert [m.peak for m in ran.measurement.timeline.memory] == [m.peak for m in predicted]
