"""Tools of the lessons: run a plan here, print tables and instructions, explain the gap."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinline import (
    COMPUTE_STREAM,
    Chart,
    Experiment,
    ExperimentError,
    Op,
    Outcome,
    Prediction,
    Program,
    ProgramError,
    Result,
    Timeline,
    Workers,
    check_program,
    compare,
    comparison_figure,
    costs_of,
    describe_plan,
    parse,
    percent,
    seconds,
    timeline_figure,
    timelines_figure,
)

PICTURES = Path("twinline-out") / "lessons"

# Models for clusters that nobody has at home.
GPT_2 = {
    "model": "gpt", "layers": 12, "hidden": 768, "heads": 12, "sequence": 1024,
    "vocab": 50257, "attention": "flash",
}  # fmt: skip
GPT_1B = {
    "model": "gpt", "layers": 24, "hidden": 2048, "heads": 16, "sequence": 2048,
    "vocab": 51200, "dtype": "bf16",
}  # fmt: skip
GPT_30B = {
    "model": "gpt", "layers": 48, "hidden": 7168, "heads": 56, "sequence": 2048,
    "vocab": 51200, "dtype": "bf16",
}  # fmt: skip

# What a rank computes for the sake of an exchange, not to train.
CODING = (Op.ENCODE, Op.DECODE)
OF_EXCHANGES = (Op.SNAPSHOT, Op.OUTER_STEP, Op.MIX, *CODING)


def run_here(name: str, experiment: Experiment, workers: Workers) -> Outcome:
    """Predict `experiment` for this machine and run it on `workers`; says that it does.

    The machine is calibrated between the measured steps, so that a machine whose speed
    drifts is predicted at the speed it had.
    """
    print(f"running {name} ({describe_plan(experiment)}): some ten seconds …", flush=True)
    return compare(experiment, workers=workers)


def work_seconds(prediction: Prediction) -> list[float]:
    """Return each rank's seconds of training when nothing is communicated beside it."""
    return _seconds_of(prediction, set(Op) - set(OF_EXCHANGES))


def coding_seconds(prediction: Prediction) -> float:
    """Return the seconds in which rank 0 encodes and decodes gradients."""
    return _seconds_of(prediction, CODING)[0]


def _seconds_of(prediction: Prediction, operations: Collection[Op]) -> list[float]:
    costs = costs_of(prediction.program, prediction.experiment, prediction.cluster)
    return [
        sum(
            costs.seconds(i)
            for i in instructions
            if i.task.stream == COMPUTE_STREAM and i.task.op in operations
        )
        for instructions in prediction.program.ranks
    ]


def step_seconds(prediction: Prediction) -> float:
    """Return the seconds of a training step, the mean over those of the program."""
    return prediction.iteration_time_s / prediction.program.horizon


def speed_up(prediction: Prediction) -> float:
    """Return how many ranks that never wait would do this work in the same time.

    Ranks that do alike are simulated once, so the first one speaks for all.
    """
    return (
        prediction.experiment.world_size * work_seconds(prediction)[0] / prediction.iteration_time_s
    )


def on_slow_network(
    plan: dict[str, Any],
    workload: dict[str, Any] | None = None,
    *,
    machines: int = 4,
    gbit: float = 1.0,
    **run: Any,
) -> Experiment:
    """Return `plan` for machines with `gbit` Gbit/s between them, a V100 each, for one period.

    Gossip with one neighbour has come round in two steps. Unless `workload` says otherwise,
    they train GPT-2, with eight sequences each.
    """
    horizon = plan.get("sync_period", 2 if "topology" in plan else 1)
    cluster = {"preset": "aws-p3-2xlarge", "nodes": machines, "algorithm": "ring"}
    return parse(
        {
            "workload": workload or GPT_2 | {"global_batch": 8 * machines},
            "parallel": {"data": machines, "bucket_mb": 100.0} | plan,
            "run": {"horizon": horizon} | run,
            "cluster": cluster | {"node_bandwidth_gbit": gbit},
        }
    )


def on_h100(plan: dict[str, Any]) -> Experiment:
    """Return `plan` for four H100 of one server that train GPT-2, with eight sequences each."""
    return parse(
        {
            "workload": GPT_2 | {"global_batch": 4 * 8},
            "parallel": {"data": 4, "bucket_mb": 100.0} | plan,
            "cluster": {"preset": "dgx-h100", "algorithm": "ring"},
        }
    )


def buckets(program: Program) -> list[int]:
    """The bytes of every all-reduce of rank 0, in order."""
    return [i.task.nbytes for i in program.ranks[0] if i.task.op is Op.ALL_REDUCE]


def received(program: Program) -> float:
    """Return the bytes that rank 0 receives in all-reduces and all-gathers around a ring."""
    total = 0.0
    for task in (instruction.task for instruction in program.ranks[0]):
        if task.op in (Op.ALL_REDUCE, Op.ALL_GATHER):
            times = 2 if task.op is Op.ALL_REDUCE else 1
            total += times * (len(task.group) - 1) / len(task.group) * task.nbytes
    return total


def in_flight(result: Result) -> str:
    """Return the most microbatches that each rank holds at once, as text."""
    return "/".join(str(rank.peak_inflight_microbatches) for rank in result.ranks)


def fits(prediction: Prediction) -> bool:
    """Tell whether every rank's peak memory is within its device's."""
    return prediction.memory_fit is not None and prediction.memory_fit.fits


def draw(name: str, title: str, *timelines: Timeline) -> None:
    """Draw one timeline, or two one above the other, to ``twinline-out/lessons/NAME``."""
    if len(timelines) == 1:
        figure = timeline_figure(timelines[0], title=title)
    else:
        figure = comparison_figure(*timelines, title=title)
    save(name, figure)


def draw_panels(name: str, title: str, timelines: Mapping[str, Timeline]) -> None:
    """Draw timelines under each other, by the names of their panels, without their memory."""
    save(name, timelines_figure(timelines, title=title))


def save(name: str, figure: Chart) -> None:
    """Write a picture to ``twinline-out/lessons/NAME``."""
    path = PICTURES / name
    figure.save(path)
    print(f"wrote {path}")


def write(name: str, *lines: str) -> Path:
    """Write a file of text beside the pictures."""
    path = PICTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def show_program(program: Program, ranks: Sequence[int] | None = None) -> None:
    """The instructions of some ranks in order: label, stream, what they wait for."""
    for rank in range(program.num_ranks) if ranks is None else ranks:
        print(f"rank {rank}")
        for instruction in program.ranks[rank]:
            waits = ", ".join(other.label for other in instruction.after)
            after = f"after {waits}" if waits else ""
            stream = f"[{instruction.task.stream}]"
            print(f"    {instruction.label:<15} {stream:<10} {after}".rstrip())


def show_table(header: Sequence[str], *rows: Sequence[str]) -> None:
    """A plain table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print()
    for row in (header, ["-" * width for width in widths], *rows):
        first, *rest = row
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    print()


def show_gap(name: str, outcome: Outcome) -> None:
    """The error of the step time against the noise, and what it consists of."""
    comparison = outcome.comparison
    error, noise = comparison.iteration_time_error, comparison.noise_floor or 0.0
    predicted, measured = outcome.prediction, outcome.execution
    horizon = predicted.program.horizon
    print(
        f"{name}: {'step' if horizon == 1 else f'{horizon} steps'} simulated "
        f"{seconds(predicted.iteration_time_s)}, measured "
        f"{seconds(measured.iteration_time_s)}, error {percent(error, signed=True)}, "
        f"noise {percent(noise)}: "
        + ("nothing to explain" if abs(error) <= noise else "more than noise")
    )
    for cause, value in (comparison.attribution or {}).items():
        text = cause.removesuffix("_s").replace("_", " ")
        print(f"    {text:<14} {value * 1e3:+9.2f} ms")
    for operation, count, mine, theirs in comparison.rows:
        print(
            f"    {operation:<14} simulated {seconds(mine):>8}, measured {seconds(theirs):>8} "
            f"(median of {count})"
        )


def show_refusal(program: Program) -> None:
    """Ask the validator about a program that is wrong, and print its answer."""
    try:
        check_program(program)
    except ProgramError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("the validator accepted a program that cannot run")


def show_refused_plan(plan: dict[str, Any]) -> None:
    """Ask for a plan that makes no sense, and print the answer."""
    try:
        parse(plan)
    except ExperimentError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("a plan was accepted that makes no sense")
