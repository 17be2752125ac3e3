"""How old the weights behind a gradient are, where updates do not wait for the pipeline."""

from __future__ import annotations

import pytest

from simulator import load, lower
from simulator.program.staleness import staleness_of


def behind(schedule: str, p: int, m: int) -> list[list[int]]:
    settings = [f"parallel.schedule={schedule}", f"parallel.pipeline={p}",
                f"parallel.microbatches={m}", "workload.layers=4"]  # fmt: skip
    rows = staleness_of(lower(load(None, settings)), list(range(p)))
    assert [row.stage for row in rows] == list(range(p))
    assert all(row.max_versions_behind == max(row.versions_behind) for row in rows)
    return [row.versions_behind for row in rows]


@pytest.mark.parametrize("schedule", ["naive", "gpipe", "1f1b", "zb-h1"])
def test_synchronous_schedules_are_never_stale(schedule: str) -> None:
    assert behind(schedule, 3, 4) == [[0] * 4] * 3


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("m", [1, 3, 8])
def test_pipedream(p: int, m: int) -> None:
    """Stage s starts a microbatch p-1-s updates before its own (Narayanan et al. 2019, 3.3),
    fewer while the pipeline fills."""
    expected = [[min(p - 1 - stage, microbatch) for microbatch in range(m)] for stage in range(p)]
    assert behind("pipedream", p, m) == expected


@pytest.mark.parametrize("p", [2, 4])
def test_pipedream_2bw(p: int) -> None:
    """One update behind on all stages alike, but for the first."""
    assert behind("pipedream-2bw", p, 3 * p) == [[0] * p + [1] * 2 * p] * p
