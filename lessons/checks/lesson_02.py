"""The exercises of lesson 2, naive model parallel, are checked against the simulator."""

from __future__ import annotations

from types import ModuleType

from lessons import lesson_tools
from lessons.checks.tools import expect, simulated, smallest

GPT_3 = lesson_tools.GPT_30B | {"layers": 96, "hidden": 12288, "heads": 96}


def naive_bubble(answers: ModuleType) -> str:
    for ranks in (8, 2, 3, 1):
        result = simulated({"model": "unit"}, pipeline=ranks, microbatches=2, schedule="naive")
        value = answers.bubble_fraction(ranks)
        expect(
            abs(float(value) - result.bubble_fraction) < 1e-6,
            f"{ranks} ranks: {value!r}, the simulator has {result.bubble_fraction:.4f}",
        )
    return "8 ranks: 0.875"


def gpt3_stages(answers: ModuleType) -> str:
    def enough(stages: int) -> bool:
        workload = GPT_3 | {"global_batch": 1}
        return lesson_tools.fits(simulated(workload, pipeline=stages, schedule="naive"))

    answer = answers.stages_for_gpt3()
    expect(answer != 19, "96 layers over 19 stages: some stages have 6 layers, and one is too big")
    return smallest(answer, enough, "at most 85.9 GB a rank")


def uneven(answers: ModuleType) -> str:
    value = float(answers.uneven_bubble())
    expect(
        abs(value - 0.75) < 1e-6,
        f"{value:g}: the step takes 8 s on 4 ranks; how many of those rank-seconds compute?",
    )
    return "0.75: one rank computes at any moment, whichever it is"
