"""``twinline schedules``: every schedule in one table, in the order the papers promise."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ExperimentError, predict
from simulator.analysis.metrics import rank_metrics
from simulator.planner.schedules import (
    HORIZON,
    PipelineSetting,
    ScheduleFigures,
    compare_schedules,
    parse_costs,
    to_json,
)
from simulator.strategies.schedules.registry import SCHEDULES


def table(*arguments, **more) -> dict[tuple[str, int], ScheduleFigures]:
    rows = compare_schedules(PipelineSetting(*arguments, **more))
    return {(row.schedule, row.virtual_stages): row for row in rows}


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 16), (8, 16)])
def test_equal_costs_in_the_order_of_the_papers(p: int, m: int) -> None:
    rows = table(p, m)
    assert {name for name, _ in rows} == set(SCHEDULES)
    time = {key: row.iteration_time for key, row in rows.items()}
    assert time["naive", 1] == 3 * m * p == max(time.values())
    for name in ("gpipe", "1f1b", "eager-1f1b", "pipedream", "pipedream-2bw", "looped-bfs"):
        assert time[name, 1] == 3 * (m + p - 1)
    for name in ("interleaved-1f1b", "looped-bfs"):
        assert time[name, 2] == 3 * m + 1.5 * (p - 1) < time["1f1b", 1]
    for name in ("zb-h1", "zb-h2", "zb-auto"):
        assert time[name, 1] == 3 * m + p - 1 < time["interleaved-1f1b", 2]
    for name in ("zb-h1", "zb-v", "dualpipe-v"):
        assert time[name, 2] == 3 * m + (p - 1) / 2 == min(time.values())
    assert [*time.values()] == sorted(time.values())
    assert [row.bubble_fraction for row in rows.values()] == [
        (t - 3 * m) / t for t in time.values()
    ]


def test_other_figures() -> None:
    rows = table(4, 8)
    assert rows["1f1b", 1].in_flight == (4, 3, 2, 1)
    assert rows["gpipe", 1].in_flight == (8,) * 4
    assert rows["zb-h2", 1].in_flight == (7,) * 4
    assert rows["zb-v", 2].in_flight == (4,) * 4  # eight activations of half the size
    assert rows["interleaved-1f1b", 2].in_flight == (5.5, 4.5, 3.5, 2.5)
    assert rows["1f1b", 1].messages == 8 * 2 * 3
    assert rows["interleaved-1f1b", 2].messages == 8 * 2 * 7
    assert rows["zb-v", 2].messages == 8 * 2 * 6  # the turn of the V is on one rank
    asynchronous = {name: row for (name, _), row in rows.items() if row.asynchronous}
    assert {name: row.versions_behind for name, row in asynchronous.items()} == {
        "pipedream": 3,
        "pipedream-2bw": 1,
    }
    assert {row.versions_behind for row in rows.values() if not row.asynchronous} == {0}


eighths = st.integers(0, 16).map(lambda n: n / 8)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), eighths, eighths, eighths, eighths)
def test_the_same_work_everywhere_and_nothing_is_an_error(p, m, v, f, i, w, p2p) -> None:
    if f + i + w == 0:
        return
    case = PipelineSetting(p, m, f, i, w, p2p, v)
    rows = compare_schedules(case)
    for row in rows:
        assert (row.note != "") == (row.refused or row.asynchronous)
        if row.timeline is not None:
            for rank in rank_metrics(row.timeline):
                assert rank.compute_s == pytest.approx(case.work)
    times = [row.iteration_time for row in rows if not row.refused]
    assert all(before <= after * (1 + 1e-8) for before, after in pairwise(times))
    assert [row.refused for row in rows] == sorted(row.refused for row in rows)
    json.dumps(to_json(case, rows), allow_nan=False)


def test_refusals_say_why() -> None:
    rows = table(4, 6, virtual_stages=3)
    notes = {key: row.note for key, row in rows.items() if row.refused}
    assert notes == {
        ("zb-v", 3): "virtual_stages = 3; allowed: 2",
        ("dualpipe-v", 3): "microbatches = 6; allowed with pipeline = 4: 8 or more",
        ("pipedream-2bw", 1): "microbatches = 6; allowed: a multiple of the pipeline degree, 4",
    }
    assert ("1f1b", 3) not in rows  # nothing to say: it is there with one stage a rank


def test_a_memory_limit_is_kept_by_the_search_and_told_of_the_others() -> None:
    rows = table(4, 8, memory_limit=3)
    assert max(rows["zb-auto", 1].in_flight) == 3
    assert {name for (name, _), row in rows.items() if "over 3" not in row.note} == {
        "naive",
        "zb-auto",
    }


def test_costs() -> None:
    assert parse_costs("1, 2,3e-1,0") == (1.0, 2.0, 0.3, 0.0)
    with pytest.raises(ExperimentError, match="four numbers"):
        parse_costs("1,2,3,4,5")


def steady(p: int, m: int) -> dict[tuple[str, int], float]:
    rows = compare_schedules(PipelineSetting(p, m))
    return {(r.schedule, r.virtual_stages): r.steady_step_time for r in rows if not r.refused}


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 16)])
def test_only_what_never_drains_is_faster_among_many(p: int, m: int) -> None:
    """Qi et al. 2023 ("Zero Bubble Pipeline Parallelism", section 2.2 and figure 3): steps of
    ZB-H2 follow each other without a bubble; those of ZB-H1 and 1F1B keep theirs."""
    times = steady(p, m)
    for name in ("zb-h2", "pipedream", "pipedream-2bw"):
        assert times[name, 1] == pytest.approx(3 * m)
    assert times["zb-v", 2] == pytest.approx(3 * m)
    assert times["zb-h1", 1] == pytest.approx(3 * m + p - 1)
    for name in ("1f1b", "gpipe", "eager-1f1b"):
        assert times[name, 1] == pytest.approx(3 * (m + p - 1))
    assert times["naive", 1] == pytest.approx(3 * m * p)


@pytest.mark.parametrize("schedule", ["zb-h2", "zb-v", "1f1b", "zb-h1", "interleaved-1f1b"])
def test_the_third_step_is_as_all_that_follow(schedule: str) -> None:
    setting = PipelineSetting(4, 8, 1.0, 1.3, 0.8, 0.1)
    virtual = 2 if schedule in ("zb-v", "interleaved-1f1b") else 1
    times = []
    for horizon in (HORIZON, 9):
        steps = predict(setting.experiment(schedule, virtual, horizon=horizon)).metrics.steps
        assert steps is not None
        times.append(steps.steady_s)
    assert times[1] == pytest.approx(times[0], rel=1e-9)


def test_no_step_takes_longer_among_many_than_alone_nor_less_than_its_work() -> None:
    setting = PipelineSetting(3, 6, 1.0, 2.0, 0.5, 0.25)
    for row in compare_schedules(setting):
        if not row.refused:
            assert setting.work - 1e-9 <= row.steady_step_time <= row.iteration_time + 1e-9
