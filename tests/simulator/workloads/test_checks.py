"""What a model cannot do is refused in one line."""

from __future__ import annotations

import pytest

from simulator import ExperimentError
from simulator.experiment_file import experiment


def test_a_unit_has_no_gradients_to_scale() -> None:
    with pytest.raises(ExperimentError) as error:
        experiment(model="unit", dtype="fp16", pipeline=2)
    assert str(error.value) == (
        "workload.dtype = 'fp16': workload.model = 'unit' has no gradients to scale; allowed: "
        "leave it out"
    )
    experiment(model="unit", dtype="bf16", pipeline=2)  # of which nothing depends
