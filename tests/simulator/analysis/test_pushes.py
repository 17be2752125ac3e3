"""A push is of the version that its worker read, and belongs to the update that it made."""

from __future__ import annotations

import pytest

from simulator import load, predict
from simulator.analysis.pushes import pushes_of, steps_of_accepts
from simulator.program.arrival_staleness import arrival_staleness

UNEVEN = ["model=mlp", "pipeline=1", "data=3", "horizon=4", "jitter=lognormal", "jitter_spread=0.4"]


@pytest.mark.parametrize(
    ("style", "updates"),
    [
        (["data_style=asynchronous"], 12),
        (["data_style=soft-synchronous", "gradients_per_update=3"], 4),
        (["data_style=stale-synchronous", "staleness_bound=1"], 12),
    ],
)
def test_updates_in_between_are_the_staleness(style: list[str], updates: int) -> None:
    prediction = predict(load(None, [*UNEVEN, *style]))
    line = prediction.timeline
    due = [push.write for push in pushes_of(line) if push.is_due]
    assert len(due) == updates
    assert line.end[due].tolist() == sorted(line.end[due])
    behind: dict[int, list[int | None]] = {}
    for push in pushes_of(line):
        behind.setdefault(push.worker, []).append(push.updates)
        assert line.label(push.pull).endswith("PULL")
        assert line.label(push.push).endswith("PUSH")
        assert line.end[push.pull] < line.end[push.push] <= line.end[push.write]
        assert line.kinds[line.kind[push.write]].name in ("STEP", "ACCEPT")
    rows = arrival_staleness(prediction.program, line.decisions)
    assert behind == {row.worker: row.versions_behind for row in rows}


def test_programs_without_arrivals_have_none() -> None:
    line = predict(load(None, ["model=mlp", "pipeline=1", "data=2"])).timeline
    assert (pushes_of(line), steps_of_accepts(line)) == ([], {})
