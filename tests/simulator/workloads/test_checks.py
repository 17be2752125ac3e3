"""What a model cannot do is refused in one line."""

from __future__ import annotations

import pytest

from simulator import ExperimentError
from simulator.experiment_file import experiment


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", 64), ("layers", 2), ("dtype", "bf16"), ("dtype", "fp16")]
)
def test_a_unit_has_nothing_but_its_duration(key: str, value: object) -> None:
    with pytest.raises(ExperimentError) as error:
        experiment(model="unit", pipeline=2, **{key: value})
    assert str(error.value).startswith(f"workload.{key} = {value!r}: only for workload.model = ")
    assert "unit" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "table"), [("bucket_mb", 1.0, "parallel"), ("learning_rate", 0.1, "run")]
)
def test_what_is_about_parameters_is_refused_for_a_unit(key: str, value: float, table: str) -> None:
    with pytest.raises(ExperimentError) as error:
        experiment(model="unit", pipeline=2, **{key: value})
    assert str(error.value) == (
        f"{table}.{key} = {value:g}: workload.model = 'unit' has no parameters; allowed: unset"
    )
