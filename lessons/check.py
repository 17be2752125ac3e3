"""Check the exercises of a lesson: ``python -m lessons.check 01``.

The answers are the functions of ``lessons/exercises_01.py`` (or of ``--file``). Exit code 0
if all of them are right.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lessons import lesson_tools
from twinline import ExperimentError, Op, Prediction, nbytes, parse, predict, ring_seconds

H100 = {"preset": "dgx-h100"}
RINGS = H100 | {"algorithm": "ring"}  # what lesson 1 has a formula for
GPT_3 = lesson_tools.GPT_30B | {"layers": 96, "hidden": 12288, "heads": 96}


class Wrong(Exception):
    """The answer is not right; the message helps."""


def expect(condition: object, hint: str) -> None:
    if not condition:
        raise Wrong(hint)


def near(value: Any, target: float, tolerance: float = 0.001) -> bool:
    return abs(float(value) - target) <= tolerance * abs(target)


def simulated(
    workload: dict[str, Any], cluster: dict[str, Any] | None = None, **parallel: Any
) -> Prediction:
    return predict(parse({"workload": workload, "parallel": parallel, "cluster": cluster or H100}))


def milliseconds(prediction: Prediction) -> float:
    return 1e3 * prediction.iteration_time_s


# Lesson 1 ----------------------------------------------------------------------------------


def all_reduce_formula(answers: ModuleType) -> str:
    for ranks, size, bandwidth, latency in (
        (2, 1e6, 1e9, 1e-4),
        (8, 1e9, 360e9, 3e-6),
        (64, 8.0, 1e10, 6e-6),
    ):
        value = answers.all_reduce_seconds(ranks, size, bandwidth, latency)
        target = ring_seconds(Op.ALL_REDUCE, ranks, size, latency, bandwidth)
        expect(
            near(value, target),
            f"{ranks} ranks, {size:g} bytes, {bandwidth:g} bytes/s, {latency:g} s: {value!r}, "
            f"expected {target:.6g}",
        )
    return "1 GB over 8 ranks: 4.90 ms"


def bucket_size(answers: ModuleType) -> str:
    size = float(answers.bucket_mb())
    workload = lesson_tools.GPT_1B | {"global_batch": 256}
    prediction = simulated(workload, RINGS, data=256, bucket_mb=size)
    time = milliseconds(prediction)
    count = len(lesson_tools.buckets(prediction.program))
    result = f"{size:g} MB: {count} buckets, {time:.1f} ms"
    side = "the latency is paid too often" if count > 20 else "too little is left to overlap"
    expect(time <= 82, f"{result}; the target is 82 ms: {side}")
    return result


def accumulation(answers: ModuleType) -> str:
    def speedup(microbatches: int) -> float:
        workload = lesson_tools.GPT_1B | {"global_batch": 16 * 4 * microbatches}
        cluster = RINGS | {"node_bandwidth_gbit": 100.0}
        plan = {"data": 16, "microbatches": microbatches, "bucket_mb": 100.0}
        prediction = simulated(workload, cluster, **plan)
        compute = lesson_tools.work_seconds(prediction)[0]
        return 16 * compute / prediction.iteration_time_s

    return smallest(answers.microbatches(), lambda m: speedup(m) >= 12, "a speed-up of 12")


def smallest(answer: Any, enough: Callable[[int], bool], what: str) -> str:
    """Check that `answer` is the smallest integer that is enough."""
    expect(isinstance(answer, int) and answer >= 1, f"{answer!r} is not a whole number from 1")
    expect(enough(answer), f"{answer} does not give {what}; take more")
    expect(answer == 1 or not enough(answer - 1), f"{answer - 1} gives {what} too; take fewer")
    return f"{answer} is the smallest number with {what}"


# Lesson 2 ----------------------------------------------------------------------------------


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


# Lesson 3 ----------------------------------------------------------------------------------


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


CHECKS: dict[str, list[Callable[[ModuleType], str]]] = {
    "01": [all_reduce_formula, bucket_size, accumulation],
    "02": [naive_bubble, gpt3_stages, uneven],
    "03": [enough_microbatches, own_schedule, plan_that_fits],
}


def load(path: Path) -> ModuleType:
    """Import the answers.

    Raises:
        Wrong: the file cannot be imported.
    """
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise Wrong(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Wrong(f"{path}: {type(error).__name__}: {error}") from None
    return module


def verdict(check: Callable[[ModuleType], str], answers: ModuleType) -> tuple[bool, str]:
    """Tell whether the exercise is solved, and return a line that helps."""
    try:
        return True, check(answers)
    except NotImplementedError:
        return False, "not solved yet"
    except (Wrong, ExperimentError) as error:
        return False, str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lessons.check", description=__doc__)
    parser.add_argument("lesson", help=f"one of {', '.join(CHECKS)}")
    parser.add_argument("--file", type=Path, help="your answers, if they are in another file")
    options = parser.parse_args(arguments)
    lesson = options.lesson.zfill(2)
    if lesson not in CHECKS:
        parser.error(f"lesson {options.lesson}: choose one of {', '.join(CHECKS)}")
    path = options.file or Path(__file__).with_name(f"exercises_{lesson}.py")
    try:
        answers = load(path)
    except Wrong as error:
        print(error)
        return 1
    passed = 0
    for number, check in enumerate(CHECKS[lesson], start=1):
        ok, line = verdict(check, answers)
        passed += ok
        print(f"exercise {number}: {'pass' if ok else 'FAIL'}  {line}", flush=True)
    print(f"{passed} of {len(CHECKS[lesson])} solved in {path}")
    return 0 if passed == len(CHECKS[lesson]) else 1


if __name__ == "__main__":
    sys.exit(main())
