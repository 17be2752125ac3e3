"""The exercises of lesson 6, send less, are checked against the simulator."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

from lessons import lesson_tools
from lessons.checks.tools import expect, near, smallest
from twinline import Program, lower, parse, predict


def count(answers: ModuleType) -> str:
    for ranks, density in ((8, 0.01), (2, 0.5), (3, 0.2)):
        values = sum(lesson_tools.buckets(program_of(ranks))) // 4
        for compression in ("none", "fp16", "int8", "top-k"):
            keys = {"density": density} if compression == "top-k" else {}
            target = lesson_tools.received(program_of(ranks, compression=compression, **keys))
            value = answers.received_bytes(compression, ranks, values, density)
            case = f" of {density}" if keys else ""
            expect(
                near(value, target),
                f"{compression}{case}, {ranks} ranks, {values} values: {value!r}, "
                f"the program has {target:.0f}",
            )
    return "a million values on 8 ranks, top-k of 1 %: 0.56 MB"


def program_of(ranks: int, **keys: Any) -> Program:
    """Lower a model in one bucket, which has so many values that a scale does not count."""
    workload = {"model": "mlp", "layers": 2, "hidden": 256, "global_batch": ranks}
    return lower(
        parse({"workload": workload, "parallel": {"data": ranks, "bucket_mb": 1e6} | keys})
    )


def fast_network(answers: ModuleType) -> str:
    def enough(gbit: int) -> bool:
        plain, coded = (
            predict(lesson_tools.on_slow_network(plan, gbit=float(gbit))).iteration_time_s
            for plan in ({}, {"compression": "int8"})
        )
        return plain <= coded

    return smallest(answers.enough_gbit(), enough, "steps that int8 does not make shorter")


def own_error_feedback(answers: ModuleType) -> str:
    draw = random.Random(6)
    for values, kept in ((4, 1), (10, 3), (5, 5)):
        steps = [[draw.gauss(0.0, 1.0) for _ in range(values)] for _ in range(20)]
        exchange(answers, steps, kept)
    sent = exchange(answers, [[8.0, 4.0, 2.0, 1.0]] * 1000, 1)
    mean = [total / 1000 for total in sent]
    expect(
        all(near(value, target, 0.01) for value, target in zip(mean, (8, 4, 2, 1), strict=True)),
        f"1000 times 8, 4, 2, 1: the mean of what was sent is {mean}",
    )
    return "1000 times 8, 4, 2, 1, one sent a step: all are sent"


def exchange(answers: ModuleType, steps: list[list[float]], kept: int) -> list[float]:
    """Give the answer the gradients of each step, look at what it returns, and sum what is sent."""
    values = len(steps[0])
    errors, total, given = [0.0] * values, [0.0] * values, [0.0] * values
    for number, gradients in enumerate(steps):
        case = f"{values} values, {kept} sent, step {number}"
        pushed = [a + b for a, b in zip(gradients, errors, strict=True)]
        sent, errors = map(list, answers.top_k(list(gradients), list(errors), kept))
        expect(
            len(sent) == len(errors) == values,
            f"{case}: {len(sent)} values are sent and {len(errors)} kept",
        )
        places = [place for place, value in enumerate(sent) if value]
        expect(len(places) <= kept, f"{case}: {len(places)} values are sent")
        total = [a + b for a, b in zip(total, sent, strict=True)]
        given = [a + b for a, b in zip(given, gradients, strict=True)]
        expect(
            all(abs(a + e - g) < 1e-6 for a, e, g in zip(total, errors, given, strict=True)),
            f"{case}: what was sent and what is kept do not add up to all gradients until then",
        )
        least = sorted(map(abs, pushed))[-kept]
        expect(
            all(abs(value) <= least + 1e-9 for value in errors),
            f"{case}: {max(map(abs, errors)):.3g} is kept; of gradients and errors together, "
            f"all from {least:.3g} on are sent",
        )
    return total
