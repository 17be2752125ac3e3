"""The exercises of lesson 5, talk less, are checked against the simulator."""

from __future__ import annotations

from types import ModuleType

from lessons import lesson_tools
from lessons.checks.tools import expect, near
from twinline import Op, predict, ring_seconds


def local_steps_formula(answers: ModuleType) -> str:
    for period, compute, ranks, size, bandwidth, latency in (
        (16, 0.656, 4, 652e6, 120e6, 100e-6),
        (1, 0.02, 2, 1e6, 1e9, 1e-3),
        (100, 0.5, 64, 1e9, 1e8, 0.05),
    ):
        value = answers.step_seconds(period, compute, ranks, size, bandwidth, latency)
        target = compute + ring_seconds(Op.ALL_REDUCE, ranks, size, latency, bandwidth) / period
        expect(
            near(value, target),
            f"H = {period}, {compute:g} s, {ranks} ranks, {size:g} bytes, {bandwidth:g} bytes/s, "
            f"{latency:g} s: {value!r}, expected {target:.6g}",
        )
    return "H = 16 on four machines: 1.17 s"


def hidden(answers: ModuleType) -> str:
    plan = answers.plan()
    needed, allowed = {"fragments", "overlap_steps"}, {"fragments", "overlap_steps", "bucket_mb"}
    expect(
        isinstance(plan, dict) and needed <= set(plan) <= allowed,
        f"{plan!r}: expected the keys fragments and overlap_steps",
    )
    keys = {"data_style": "diloco", "sync_period": 16} | plan
    speed_up = lesson_tools.speed_up(predict(lesson_tools.on_slow_network(keys)))
    result = f"{plan['fragments']} fragments beside {plan['overlap_steps']} steps: {speed_up:.2f}"
    expect(plan["overlap_steps"] <= 3, f"{result}; at most 3 overlap_steps are allowed")
    expect(
        speed_up >= 3.45,
        f"{result}; the target is 3.45: how long does the largest fragment take, how long do the "
        "steps beside it?",
    )
    return result


def own_gossip(answers: ModuleType) -> str:
    for steps in (1, 2, 3, 4):
        ranks = 2**steps
        known = [[float(rank == other) for other in range(ranks)] for rank in range(ranks)]
        for step in range(2 * steps):
            taken = [answers.neighbour(step, rank, ranks) for rank in range(ranks)]
            case = f"{ranks} ranks, step {step}"
            expect(
                all(isinstance(other, int) and 0 <= other < ranks for other in taken),
                f"{case}: {taken} are not all ranks from 0 to {ranks - 1}",
            )
            for other in range(ranks):
                takers = [rank for rank in range(ranks) if taken[rank] == other]
                expect(
                    len(takers) == 1,
                    f"{case}: rank {other} gives to {len(takers)} ranks; each gives to one",
                )
            known = [
                [
                    (mine + theirs) / 2
                    for mine, theirs in zip(known[rank], known[other], strict=True)
                ]
                for rank, other in enumerate(taken)
            ]
            if step >= steps - 1:
                least, most = (of(map(of, known)) for of in (min, max))
                expect(
                    least == most,
                    f"{ranks} ranks, after {step + 1} steps: a rank has "
                    f"{least:.3g} of one rank and {most:.3g} of another, not 1/{ranks} of each",
                )
    return "8 replicas: the exact mean after 3 steps"
