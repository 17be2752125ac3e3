"""Predictions and refusals are those of the record, so that nothing changes by accident.

``record.json`` has, for each plan: the settings, and either what it is refused with, or the hash
of its program and the figures of its prediction (of ranks, the sums over all). A figure that is
meant to change is changed in the record, in the commit that changes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator import load, predict
from simulator.experiment.section import ExperimentError

RECORD = json.loads(Path(__file__).with_name("record.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name, plan in RECORD.items() if "figures" in plan])
def test_a_prediction_is_as_recorded(name: str) -> None:
    plan = RECORD[name]
    prediction = predict(load(None, plan["set"]))
    result: dict[str, Any] = prediction.to_json()
    for key, expected in plan["figures"].items():
        if key == "ranks":
            found = {field: sum(rank[field] for rank in result["ranks"]) for field in expected}
        elif key == "program":
            found = {field: result["program"][field] for field in expected}
        else:
            found = result[key]
        assert found == pytest.approx(expected, rel=1e-9), key
    assert result["notes"] == plan["notes"]
    assert prediction.program.hash() == plan["hash"]


@pytest.mark.parametrize("name", [name for name, plan in RECORD.items() if "refusal" in plan])
def test_a_refusal_is_as_recorded(name: str) -> None:
    with pytest.raises(ExperimentError) as error:
        predict(load(None, RECORD[name]["set"]))
    assert str(error.value) == RECORD[name]["refusal"]
