"""The time of a step among many is what the papers promise, and does not depend on how many."""

from __future__ import annotations

import pytest

from simulator import lower
from simulator.planner import steady_state
from simulator.planner.schedules import PipelineSetting, compare_schedules
from simulator.planner.steady_state import repeated, synchronous_step_s
from simulator.program.check import check_program


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
def test_the_third_step_is_as_all_that_follow(schedule: str, monkeypatch) -> None:
    setting = PipelineSetting(4, 8, 1.0, 1.3, 0.8, 0.1)
    experiment = setting.experiment(schedule, 2 if schedule in ("zb-v", "interleaved-1f1b") else 1)
    found = synchronous_step_s(experiment)
    monkeypatch.setattr(steady_state, "STEPS", 9)
    assert synchronous_step_s(experiment) == pytest.approx(found, rel=1e-9)


def test_no_step_takes_longer_among_many_than_alone_nor_less_than_its_work() -> None:
    setting = PipelineSetting(3, 6, 1.0, 2.0, 0.5, 0.25)
    for row in compare_schedules(setting):
        if not row.refused:
            assert setting.work - 1e-9 <= row.steady_step_time <= row.iteration_time + 1e-9


def test_a_repeated_program_is_a_program() -> None:
    program = lower(PipelineSetting(3, 4).experiment("zb-h1", 1))
    twice = repeated(program, 2)
    check_program(twice)
    assert [len(listed) for listed in twice.ranks] == [2 * len(listed) for listed in program.ranks]
    for before, after in zip(program.ranks, twice.ranks, strict=True):
        count = len(before)
        assert [i.label for i in after] == 2 * [i.label for i in before]
        for number, instruction in enumerate(after):
            begun = number // count * count
            waits = [other.index for other in before[number % count].after]
            within = [other.index - begun for other in instruction.after if other.index >= begun]
            assert within == waits
