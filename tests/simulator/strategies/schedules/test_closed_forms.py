"""Figures and closed forms of the papers on pipeline schedules, by simulation.

All times are sums of halves and quarters, so every equality is exact.
"""

from __future__ import annotations

from typing import Any

import pytest

from simulator import Prediction, load, predict
from simulator.cluster.resolve import resolve
from simulator.strategies.schedules.registry import SCHEDULES

STAGES = (1, 2, 5)
EQUAL = ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5))
SHORT_WEIGHTS = (*EQUAL, (1.0, 1.0, 0.5), (1.0, 1.5, 0.5), (1.0, 0.75, 0.75), (3.0, 2.0, 1.0))
"""(F, I, W) with W ≤ F and W ≤ I, as the zero-bubble paper assumes."""


def run(
    schedule: str, p: int, m: int, v: int = 1, seconds=EQUAL[0], p2p: float = 0.0
) -> Prediction:
    forward, backward_input, backward_weight = seconds
    experiment = load(
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
            f"parallel.virtual_stages={v}",
        ],
    )
    return predict(experiment, resolve(experiment))


def in_flight(result: dict[str, Any]) -> list[int]:
    return [row.peak_inflight_microbatches for row in result.ranks]


def idle_between(result: dict[str, Any]) -> list[float]:
    """Per rank, the time it does not compute between its first pass and its last."""
    return [row.last_end_s - row.first_start_s - row.compute_s for row in result.ranks]


def drawn(prediction: Prediction) -> list[str]:
    """A row a rank, a cell a second, as the figures of the papers; small letters are stages
    of the second half of the model. Passes take a second each."""
    timeline = prediction.timeline
    rows = [[".."] * int(timeline.iteration_time) for _ in range(timeline.num_ranks)]
    for span in range(len(timeline.rank)):
        kind = timeline.kinds[timeline.kind[span]]
        if kind.op in {"F", "I", "W"}:
            assert timeline.end[span] - timeline.start[span] == 1.0
            letter = kind.op if kind.stage < timeline.num_ranks else kind.op.lower()
            cell = f"{letter}{timeline.microbatch[span]}"
            rows[timeline.rank[span]][int(timeline.start[span])] = cell
    return [" ".join(row) for row in rows]


# Rank 0 first. The idle cells of a rank are the bubble.
FIGURES = {
    # 27 s: 24 of work and the bubble of p-1 = 3; no rank ever holds more than 4 microbatches.
    "zb-h1": """
        F0 F1 F2 F3 .. .. .. I0 W0 F4 I1 W1 F5 I2 W2 F6 I3 W3 F7 I4 W4 I5 W5 I6 W6 I7 W7
        .. F0 F1 F2 .. .. I0 F3 I1 W0 F4 I2 W1 F5 I3 W2 F6 I4 W3 F7 I5 W4 I6 W5 I7 W6 W7
        .. .. F0 F1 .. I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 F6 I5 W3 F7 I6 W4 I7 W5 W6 W7
        .. .. .. F0 I0 F1 I1 F2 I2 F3 I3 W0 F4 I4 W1 F5 I5 W2 F6 I6 W3 F7 I7 W4 W5 W6 W7
    """,
    # A parallelogram: no idle cell between the first pass of a rank and its last.
    "zb-h2": """
        F0 F1 F2 F3 F4 F5 F6 I0 W0 F7 I1 W1 I2 W2 I3 W3 I4 W4 I5 W5 I6 W6 I7 W7 .. .. ..
        .. F0 F1 F2 F3 F4 I0 F5 I1 F6 I2 W0 F7 I3 W1 I4 W2 I5 W3 I6 W4 I7 W5 W6 W7 .. ..
        .. .. F0 F1 F2 I0 F3 I1 F4 I2 F5 I3 F6 I4 W0 F7 I5 W1 I6 W2 I7 W3 W4 W5 W6 W7 ..
        .. .. .. F0 I0 F1 I1 F2 I2 F3 I3 F4 I4 F5 I5 F6 I6 W0 F7 I7 W1 W2 W3 W4 W5 W6 W7
    """,
    # Of 8 microbatches; 48 s of work a rank and none idle, 8 half-size activations at most.
    "zb-v": """
        F0 F1 F2 F3 F4 F5 F6 f0 i0 w0 f1 i1 w1 f2 i2 w2 f3 i3 w3 F7 I0 W0 f4 i4 w4
        .. F0 F1 F2 F3 F4 f0 F5 f1 i0 w0 f2 i1 w1 f3 i2 w2 F6 I0 W0 f4 i3 w3 F7 I1
        .. .. F0 F1 F2 f0 F3 f1 F4 f2 i0 w0 f3 i1 w1 F5 I0 W0 f4 i2 w2 F6 I1 W1 f5
        .. .. .. F0 f0 F1 f1 F2 f2 F3 f3 i0 w0 F4 I0 W0 f4 i1 w1 F5 I1 W1 f5 i2 w2
    """,
}
ZB_V_CONTINUED = """
    I1 W1 f5 i5 w5 I2 W2 f6 i6 w6 I3 W3 f7 i7 w7 I4 W4 I5 W5 I6 W6 I7 W7 .. .. ..
    W1 f5 i4 w4 I2 W2 f6 i5 w5 I3 W3 f7 i6 w6 I4 i7 I5 W4 I6 W5 I7 W6 w7 W7 .. ..
    i3 w3 F7 I2 W2 f6 i4 w4 I3 W3 f7 i5 w5 I4 i6 I5 i7 I6 W4 I7 W5 w6 w7 W6 W7 ..
    F6 I2 W2 f6 i3 w3 F7 I3 W3 f7 i4 w4 I4 i5 I5 i6 I6 i7 I7 W4 w5 w6 w7 W5 W6 W7
"""


@pytest.mark.parametrize("schedule", FIGURES)
def test_figures(schedule: str) -> None:
    """Four ranks, eight microbatches, F = I = W = 1."""
    expected = [row.strip() for row in FIGURES[schedule].strip().splitlines()]
    if schedule == "zb-v":
        rest = [row.strip() for row in ZB_V_CONTINUED.strip().splitlines()]
        expected = [f"{left} {right}" for left, right in zip(expected, rest, strict=True)]
    assert drawn(run(schedule, 4, 8, 2 if schedule == "zb-v" else 1)) == expected


def labels(prediction: Prediction, rank: int) -> str:
    return " ".join(i.label for i in prediction.program.ranks[rank] if i.task.op in "FBIW")


@pytest.mark.parametrize(
    ("schedule", "p", "m", "rank", "expected"),
    [
        ("eager-1f1b", 3, 6, 0, "0F0 0F1 0F2 0F3 0F4 0B0 0F5 0B1 0B2 0B3 0B4 0B5"),
        ("eager-1f1b", 3, 6, 1, "1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 1F5 1B3 1B4 1B5"),
        ("eager-1f1b", 3, 3, 0, "0F0 0F1 0F2 0B0 0B1 0B2"),
        (
            *("interleaved-1f1b", 2, 4, 0),
            "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3",
        ),
        (
            *("interleaved-1f1b", 2, 4, 1),
            "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3",
        ),
        ("interleaved-1f1b", 2, 3, 1, "1F0 1F1 1F2 3F0 3B0 3F1 3B1 3F2 3B2 1B0 1B1 1B2"),
        ("looped-bfs", 2, 2, 1, "1F0 1F1 3F0 3F1 3B1 3B0 1B1 1B0"),
        ("dualpipe-v", 1, 2, 0, "0F0 1F0 0F1 1B0 1F1 0B0 1B1 0I1 0W1"),
        (
            *("dualpipe-v", 2, 4, 0),
            "0F0 0F1 0F2 3F0 3I0 3W0 3F1 0F3 3B1 3F2 0B0 3B2 3F3 0B1 3B3 0I2 0W2 0I3 0W3",
        ),
    ],
)
def test_orders_by_hand(schedule: str, p: int, m: int, rank: int, expected: str) -> None:
    stages = 1 + max(int(label[0]) for label in expected.split()) // p
    assert labels(run(schedule, p, m, stages), rank) == expected


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", [1, 2, 5, 16])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS[:4])
@pytest.mark.parametrize("p2p", [0.0, 0.25, 0.5])
def test_eager_1f1b_hides_messages(p: int, m: int, seconds, p2p: float) -> None:
    """(m+p-1)(F+B) + 2(p-1)·p2p, as GPipe, with min(m, 2(p-r)-1) in flight."""
    result = run("eager-1f1b", p, m, seconds=seconds, p2p=p2p)
    assert result.iteration_time_s == (m + p - 1) * sum(seconds) + 2 * (p - 1) * p2p
    if p2p == 0:
        assert in_flight(result) == [min(m, 2 * (p - rank) - 1) for rank in range(p)]
    if p2p > 0 and p > 1 and m >= 2 * p:
        plain = run("1f1b", p, m, seconds=seconds, p2p=p2p)
        assert plain.iteration_time_s > result.iteration_time_s


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("v", [2, 3])
@pytest.mark.parametrize("m", [2, 7, 12])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS[1:4])
def test_interleaved(p: int, v: int, m: int, seconds) -> None:
    """(vm+p-1)(F+B) for both; with fewer microbatches than ranks a loop takes p of them."""
    size = m // max(1, m // p)
    makespan = ((v - 1) * max(m, p) + m + p - 1) * sum(seconds)
    breadth = run("looped-bfs", p, m, v, seconds)
    assert breadth.iteration_time_s == makespan
    assert in_flight(breadth) == [v * m] * p
    if m % size:
        return
    depth = run("interleaved-1f1b", p, m, v, seconds)
    assert depth.iteration_time_s == makespan
    assert in_flight(depth) == [
        min(v * m, (v - 1) * size + 2 * (p - 1 - rank) + 1) for rank in range(p)
    ]
    if m >= p:
        assert depth.bubble_fraction == pytest.approx((p - 1) / (v * m + p - 1), abs=1e-15)
        assert depth.bubble_ratio == pytest.approx((p - 1) / m / v, abs=1e-15)


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("v", [1, 2, 3])
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS)
def test_zb_h1(p: int, v: int, rounds: int, seconds) -> None:
    """Bubble (p-1)(F+I-W), a third of 1F1B's for F = I = W, with 1F1B's peak memory."""
    m, (forward, backward_input, backward_weight) = p * rounds, seconds
    result = run("zb-h1", p, m, v, seconds)
    work = v * m * sum(seconds)
    bubble = (p - 1) * (forward + backward_input - backward_weight)
    assert result.iteration_time_s == work + bubble
    assert max(idle_between(result)) == bubble
    assert in_flight(result) == [v * p] * p
    if v == 1:
        plain = run("1f1b", p, m, 1, seconds)
        assert max(in_flight(result)) == max(in_flight(plain))
        if seconds in EQUAL:
            assert 3 * bubble == plain.iteration_time_s - work


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", [1, 3, 5, 9])
def test_zb_h1_takes_any_number_of_microbatches(p: int, m: int) -> None:
    result = run("zb-h1", p, m)
    plain = run("1f1b", p, m)
    assert in_flight(result) == [min(m, p)] * p
    assert result.iteration_time_s == 3 * m + (p - 1) + max(p - m, 0)
    assert result.iteration_time_s <= plain.iteration_time_s


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("extra", [0, 1, 6])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS)
def test_zb_h2(p: int, extra: int, seconds) -> None:
    """Bubble (p-1)(F+I-2W) inside the parallelogram, none for F = I = W; 2p-1 in flight."""
    m, (forward, backward_input, backward_weight) = 2 * p - 1 + extra, seconds
    result = run("zb-h2", p, m, 1, seconds)
    bubble = (p - 1) * (forward + backward_input - 2 * backward_weight)
    assert max(idle_between(result)) == bubble
    assert result.iteration_time_s == m * sum(seconds) + max((p - 1) * forward, bubble)
    assert in_flight(result) == [2 * p - 1] * p
    if seconds in EQUAL:
        assert [row.first_start_s for row in result.ranks] == [rank * forward for rank in range(p)]


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("extra", [0, 1, 6])
@pytest.mark.parametrize("seconds", EQUAL)
def test_zb_v(p: int, extra: int, seconds) -> None:
    """No rank idles between its first pass and its last; 2p half-size activations."""
    m = 2 * p - 1 + extra
    result = run("zb-v", p, m, 2, seconds)
    assert idle_between(result) == [0.0] * p
    assert result.iteration_time_s == 2 * m * sum(seconds) + (p - 1) * seconds[0]
    assert in_flight(result) == [2 * p] * p


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_zb_v_of_few_microbatches_stays_within_its_memory(p: int, m: int) -> None:
    result = run("zb-v", p, m, 2)
    assert max(in_flight(result)) <= min(2 * m, 2 * p)
    assert result.iteration_time_s <= run("looped-bfs", p, m, 2).iteration_time_s


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("extra", [0, 1, 6])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS)
def test_dualpipe_v(p: int, extra: int, seconds) -> None:
    """Published: bubble (p-1)(F&B+B-3W), here with F&B = F+B; 2p+1 half-size activations."""
    m, (forward, backward_input, backward_weight) = 2 * p + extra, seconds
    result = run("dualpipe-v", p, m, 2, seconds)
    work = 2 * m * sum(seconds)
    published = (p - 1) * (forward + 2 * (backward_input + backward_weight) - 3 * backward_weight)
    assert result.iteration_time_s <= work + published
    if backward_input == backward_weight:
        assert result.iteration_time_s == work + (p - 1) * forward
    assert in_flight(result) == [2 * p + 1] * p


@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS[:4])
def test_naive(p: int, m: int, seconds) -> None:
    """mp(F+B): one rank at a time."""
    result = run("naive", p, m, seconds=seconds)
    assert result.iteration_time_s == m * p * sum(seconds)
    assert in_flight(result) == [1] * p


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "pipedream", "pipedream-2bw"])
@pytest.mark.parametrize("p", STAGES)
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("seconds", SHORT_WEIGHTS[:4])
def test_one_stage_a_rank(schedule: str, p: int, rounds: int, seconds) -> None:
    """(m+p-1)(F+B) and bubble fraction (p-1)/(m+p-1); all but GPipe hold min(m, p-r)."""
    m = p * rounds
    result = run(schedule, p, m, seconds=seconds)
    assert result.iteration_time_s == (m + p - 1) * sum(seconds)
    assert result.bubble_fraction == pytest.approx((p - 1) / (m + p - 1), abs=1e-15)
    held = [m if schedule == "gpipe" else min(m, p - rank) for rank in range(p)]
    assert in_flight(result) == held


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("p", STAGES)
def test_messages(schedule: str, p: int) -> None:
    """2m(vp-1), and 2m(2p-2) on a V, whose middle is on one rank."""
    on_a_v = schedule in ("zb-v", "dualpipe-v")
    m, v = 2 * p, 2 if on_a_v or schedule == "interleaved-1f1b" else 1
    program = run(schedule, p, m, v).program
    hops = 2 * p - 2 if on_a_v else (p - 1 if p == 1 else v * p - 1)
    assert sum(i.task.op == "SEND" for i in program) == 2 * m * hops
