"""The exercises of lesson 3, pipelining, are checked against the simulator."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType

from lessons import lesson_tools
from lessons.checks.tools import Wrong, expect, near, simulated, smallest
from twinline import ExperimentError, Prediction, nbytes


def enough_microbatches(answers: ModuleType) -> str:
    for ranks, bubble in ((8, 0.05), (2, 0.2), (4, 0.3), (16, 0.1)):
        value = answers.microbatches_for(ranks, bubble)

        def enough(microbatches: int, ranks: int = ranks, bubble: float = bubble) -> bool:
            plan = {"pipeline": ranks, "microbatches": microbatches, "schedule": "1f1b"}
            fraction = simulated({"model": "unit"}, **plan).bubble_fraction
            return float(fraction) <= bubble + 1e-9

        smallest(value, enough, f"a bubble fraction of at most {bubble} on {ranks} ranks")
    return "8 ranks, 0.05: 133"


def own_schedule(answers: ModuleType) -> str:
    for ranks, microbatches in ((2, 4), (4, 8), (4, 2), (1, 3)):
        case = f"p = {ranks}, m = {microbatches}"
        rows = [answers.order(ranks, rank, microbatches) for rank in range(ranks)]
        result = of_order(rows, microbatches)
        time, target = 1e3 * result.iteration_time_s, 30 * (microbatches + ranks - 1)
        expect(near(time, target), f"{case}: {time:.0f} ms, the formula has {target} ms")
        held = [rank.peak_inflight_microbatches for rank in result.ranks]
        limit = [min(microbatches, ranks - rank) for rank in range(ranks)]
        expect(held == limit, f"{case}: in flight {held}, 1F1B has {limit}")
    return "the step time of the formula, min(m, p − rank) in flight"


def of_order(rows: list[list[str]], microbatches: int) -> Prediction:
    """Simulate the reader's passes, one row a rank, with F = 10 ms and B = 20 ms."""
    text = "".join(
        ",".join(f"{rank}{step}" for step in row) + "\n" for rank, row in enumerate(rows)
    )
    workload = {"model": "unit", "forward": 0.01, "backward_input": 0.01, "backward_weight": 0.01}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "yours.csv")
        path.write_text(text, encoding="utf-8")
        plan = {"pipeline": len(rows), "microbatches": microbatches, "schedule": f"csv:{path}"}
        try:
            return simulated(workload, **plan)
        except ExperimentError as error:
            reason = str(error).replace(f"{path}: ", "").replace(f"{path}", "yours.csv")
            raise Wrong(f"{len(rows)} ranks, {microbatches} microbatches: {reason}") from None


def plan_that_fits(answers: ModuleType) -> str:
    plan = answers.plan()
    expect(
        isinstance(plan, dict) and set(plan) == {"schedule", "microbatches"},
        f"{plan!r}: expected the keys schedule and microbatches",
    )
    workload = lesson_tools.GPT_30B | {"global_batch": plan["microbatches"]}
    prediction = simulated(workload, pipeline=8, **plan)
    bubble = prediction.bubble_fraction
    peak = nbytes(prediction.peak_memory_bytes)
    expect(
        lesson_tools.fits(prediction),
        f"{peak} does not fit into 85.9 GB; bubble {bubble:.3f}",
    )
    expect(bubble <= 0.16, f"bubble fraction {bubble:.3f}, the target is 0.16; {peak}")
    return f"{peak}, bubble fraction {bubble:.3f}"
