"""Orders of passes, and the closed forms that the papers give for them.

All times are sums of halves and quarters, so every equality is exact.
"""

from __future__ import annotations

import pytest

from simulator import Experiment, Prediction, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.program.csv_text import to_csv

SCHEDULES = ("naive", "gpipe", "1f1b")
STAGES = (1, 2, 3, 4, 8)
MICROBATCHES = (1, 2, 3, 5, 8, 16)
SECONDS = ((1.0, 0.5, 0.5), (0.25, 0.5, 0.25), (1.0, 0.25, 0.25))


def plan(schedule: str, p: int, m: int, seconds=SECONDS[0], p2p: float = 0.0) -> Experiment:
    forward, backward_input, backward_weight = seconds
    return load(
        None,
        [
            "workload.model=unit",
            f"workload.forward={forward}",
            f"workload.backward_input={backward_input}",
            f"workload.backward_weight={backward_weight}",
            f"workload.p2p={p2p}",
            f"parallel.schedule={schedule}",
            f"parallel.pipeline={p}",
            f"parallel.microbatches={m}",
        ],
    )


def run(*arguments, **more) -> Prediction:
    experiment = plan(*arguments, **more)
    return predict(experiment, resolve(experiment))


def orders(schedule: str, p: int, m: int) -> list[str]:
    """The passes of every rank, without their stage, which is the rank."""
    rows = to_csv(lower(plan(schedule, p, m)), compute_only=True).splitlines()
    labels = [
        [label.partition(str(rank)) for label in row.split(",")] for rank, row in enumerate(rows)
    ]
    assert all(before == "" for row in labels for before, _, _ in row)
    return [" ".join(after for _, _, after in row) for row in labels]


@pytest.mark.parametrize(
    ("schedule", "p", "rank", "m", "expected"),
    [
        ("gpipe", 4, 0, 3, "F0 F1 F2 B0 B1 B2"),
        ("gpipe", 4, 3, 3, "F0 F1 F2 B0 B1 B2"),
        ("naive", 4, 2, 3, "F0 B0 F1 B1 F2 B2"),
        ("1f1b", 4, 0, 5, "F0 F1 F2 F3 B0 F4 B1 B2 B3 B4"),
        ("1f1b", 4, 1, 5, "F0 F1 F2 B0 F3 B1 F4 B2 B3 B4"),
        ("1f1b", 4, 2, 5, "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4"),
        ("1f1b", 4, 3, 5, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4"),
        ("1f1b", 4, 0, 2, "F0 F1 B0 B1"),
        ("1f1b", 4, 2, 2, "F0 F1 B0 B1"),
        ("1f1b", 4, 3, 2, "F0 B0 F1 B1"),
        ("1f1b", 1, 0, 2, "F0 B0 F1 B1"),
    ],
)
def test_orders_by_hand(schedule: str, p: int, rank: int, m: int, expected: str) -> None:
    assert orders(schedule, p, m)[rank] == expected


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
def test_every_pass_once_and_forward_first(schedule: str, p: int, m: int) -> None:
    for row in orders(schedule, p, m):
        steps = row.split()
        assert sorted(steps) == sorted(f"{op}{b}" for op in "FB" for b in range(m))
        assert all(steps.index(f"F{b}") < steps.index(f"B{b}") for b in range(m))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
@pytest.mark.parametrize("seconds", SECONDS)
def test_gpipe_and_1f1b(schedule: str, p: int, m: int, seconds) -> None:
    """Makespan (m+p-1)(F+B), bubble fraction (p-1)/(m+p-1), bubble ratio (p-1)/m; in
    flight m (GPipe), min(m, p-r) (1F1B)."""
    result = run(schedule, p, m, seconds)
    assert result.iteration_time_s == (m + p - 1) * sum(seconds)
    assert result.bubble_fraction == (p - 1) / (m + p - 1)
    assert result.bubble_ratio == (p - 1) / m
    assert [row.peak_inflight_microbatches for row in result.ranks] == [
        m if schedule == "gpipe" else min(m, p - rank) for rank in range(p)
    ]


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
@pytest.mark.parametrize("seconds", SECONDS)
def test_naive(p: int, m: int, seconds) -> None:
    """One rank at a time: m·p·(F+B), and 1/p of the time of every rank is work."""
    result = run("naive", p, m, seconds)
    assert result.iteration_time_s == m * p * sum(seconds)
    assert result.bubble_fraction == (p - 1) / p
    assert [row.peak_inflight_microbatches for row in result.ranks] == [1] * p


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
@pytest.mark.parametrize("p2p", [0.0, 0.25, 1.0])
def test_messages_no_longer_than_a_pass_cost_gpipe_two_crossings(p: int, m: int, p2p: float):
    """(m+p-1)(F+B) + 2(p-1)·p2p: all but the first and last hide behind the next pass."""
    result = run("gpipe", p, m, (1.0, 1.0, 1.0), p2p)
    assert result.iteration_time_s == (m + p - 1) * 3.0 + 2 * (p - 1) * p2p


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
def test_messages_longer_than_a_pass_are_the_bottleneck_of_gpipe(p: int, m: int) -> None:
    """With F = B = 1 and messages of 2 s a link hands on one microbatch every 2 s."""
    result = run("gpipe", p, m, (1.0, 0.5, 0.5), p2p=2.0)
    period = 2.0 if p > 1 else 1.0
    one = p * 2.0 + 2 * (p - 1) * 2.0
    assert result.iteration_time_s == one + 2 * (m - 1) * period


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", MICROBATCHES)
def test_messages_of_the_naive_schedule_are_never_hidden(p: int, m: int) -> None:
    result = run("naive", p, m, p2p=0.25)
    assert result.iteration_time_s == m * (p * 2.0 + 2 * (p - 1) * 0.25)


@pytest.mark.parametrize("m", [2, 4, 8, 16])
def test_messages_break_the_lockstep_of_1f1b(m: int) -> None:
    """Two stages, worked by hand: in the steady state a pair of microbatches takes
    2(F+B) and two messages that nothing hides; GPipe hides them."""
    assert run("1f1b", 2, m, p2p=0.25).iteration_time_s == 2.0 + m / 2 * 4.5


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("p2p", [0.0, 0.25, 2.0])
def test_the_time_of_every_rank_adds_up(schedule: str, p: int, p2p: float) -> None:
    result = run(schedule, p, 5, p2p=p2p)
    for row in result.ranks:
        parts = row.compute_s + row.exposed_comm_s + row.idle_s
        assert row.compute_s == 5 * 2.0
        assert parts == result.iteration_time_s
        assert (row.exposed_comm_s > 0) == (p > 1 and p2p > 0)
