"""All pipeline schedules side by side, for stages that take the same time everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from simulator.cluster.resolve import resolve
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import parse
from simulator.prediction import predict
from simulator.program.operations import Op
from simulator.program.staleness import staleness_of
from simulator.strategies.lowering import lower
from simulator.strategies.schedules.registry import SCHEDULES, Plan
from simulator.strategies.schedules.schedule import is_asynchronous
from simulator.timeline.timeline import Timeline

LONGEST = 2.0
"""A picture shows a schedule up to so many times the time of the fastest."""


HORIZON = 3
"""Training steps that are simulated for the time of a step among many."""


class PipelineSetting(NamedTuple):
    """The pipeline that schedules are compared on.

    Attributes:
        stages: pipeline ranks.
        microbatches: per training step.
        forward, backward_input, backward_weight: seconds of a rank's share of the model for
            a microbatch. A schedule with v stages a rank has v times as many stages that
            take a v-th each, so every schedule has the same work.
        p2p: seconds of a message, of any schedule: a boundary between stages is as large
            wherever it is.
        virtual_stages: of the schedules that take several stages a rank.
        memory_limit: in microbatches' activations of a rank's share of the model.
    """

    stages: int
    microbatches: int
    forward: float = 1.0
    backward_input: float = 1.0
    backward_weight: float = 1.0
    p2p: float = 0.0
    virtual_stages: int = 2
    memory_limit: float | None = None

    @property
    def in_forwards(self) -> bool:
        """Return whether F is 1: the costs, and so all times, are multiples of it."""
        return self.forward == 1.0

    @property
    def work(self) -> float:
        """The seconds of compute of every rank."""
        return self.microbatches * (self.forward + self.backward_input + self.backward_weight)

    def experiment(
        self,
        schedule: str,
        virtual_stages: int,
        workload: dict[str, Any] | None = None,
        horizon: int = 1,
    ) -> Experiment:
        """Return the experiment of one schedule.

        Args:
            schedule: its name.
            virtual_stages: stages a rank.
            workload: keys of a model instead of `unit`, which is nothing but its costs.
            horizon: training steps of its program.
        """
        parallel: dict[str, Any] = {
            "pipeline": self.stages,
            "microbatches": self.microbatches,
            "schedule": schedule,
            "virtual_stages": virtual_stages,
        }
        if schedule == "zb-auto" and self.memory_limit is not None:
            parallel["memory_limit"] = self.memory_limit
        unit = {
            "model": "unit",
            "forward": self.forward / virtual_stages,
            "backward_input": self.backward_input / virtual_stages,
            "backward_weight": self.backward_weight / virtual_stages,
            "p2p": self.p2p,
        }
        run = {"horizon": horizon}
        return parse({"workload": workload or unit, "parallel": parallel, "run": run})


@dataclass
class ScheduleFigures:
    """The figures of a schedule with `virtual_stages` stages a rank.

    Attributes:
        timeline: None: refused, and `note` says why.
        in_flight: peak per rank, in microbatches' activations of the rank's whole share of
            the model: those of one of v stages count a v-th.
        messages: sent per step, over all ranks.
        steady_step_time: seconds that a step adds among many, see
            `simulator.analysis.step_times.StepTimes`. Overflow is checked for, and gradients are
            clipped, after the optimizer step only (Qi et al. 2023, "Zero Bubble Pipeline
            Parallelism", section 4).
        versions_behind: updates between the weights of a gradient and those it is put in.
    """

    schedule: str
    virtual_stages: int
    timeline: Timeline | None = None
    iteration_time: float = 0.0
    steady_step_time: float = 0.0
    bubble_fraction: float = 0.0
    in_flight: tuple[float, ...] = ()
    messages: int = 0
    versions_behind: int = 0
    asynchronous: bool = False
    note: str = ""

    @property
    def refused(self) -> bool:
        """Return whether the schedule does not allow the setting."""
        return self.timeline is None

    @property
    def name(self) -> str:
        """The name of the schedule, with its stages a rank if they are several."""
        many = self.virtual_stages > 1
        return f"{self.schedule}, {self.virtual_stages} stages a rank" if many else self.schedule


def parse_costs(text: str) -> tuple[float, float, float, float]:
    """Read the option ``--costs F,I,W,P2P``.

    Raises:
        ExperimentError: not four numbers.
    """
    try:
        forward, backward_input, backward_weight, p2p = map(float, text.split(","))
    except ValueError:
        raise ExperimentError(f"--costs {text}: allowed: four numbers, F,I,W,P2P") from None
    return forward, backward_input, backward_weight, p2p


def check_setting(setting: PipelineSetting) -> None:
    """Refuse what no schedule can be compared on.

    Raises:
        ExperimentError: with one line that names the option and what is allowed.
    """
    for key in ("stages", "microbatches", "virtual_stages"):
        if getattr(setting, key) < 1:
            option = key.removesuffix("_stages")
            raise ExperimentError(f"--{option} {getattr(setting, key)}: allowed: 1 or more")
    costs = setting[2:6]
    if not all(isfinite(cost) and cost >= 0 for cost in costs) or not setting.work > 0:
        raise ExperimentError(
            f"--costs {','.join(f'{cost:g}' for cost in costs)}: allowed: seconds, 0 or more, "
            "and not all of F, I and W zero"
        )
    limit = setting.memory_limit
    if limit is not None and not (isfinite(limit) and limit >= 1):
        raise ExperimentError(f"--memory-limit {limit:g}: allowed: 1 or more microbatches")


def compare_schedules(setting: PipelineSetting) -> list[ScheduleFigures]:
    """Return the figures of every registered schedule, the fastest first, refused ones last.

    Schedules that can do with one stage a rank and with several have an entry for each.
    """
    check_setting(setting)
    rows = []
    for name, schedule in SCHEDULES.items():
        # Whether it can have v stages a rank at all: 4p microbatches suit every schedule.
        degrees = [
            v
            for v in sorted({1, setting.virtual_stages})
            if schedule.refusal(Plan(setting.stages, 4 * setting.stages, v)) is None
        ]
        for virtual_stages in degrees or [setting.virtual_stages]:
            plan = Plan(setting.stages, setting.microbatches, virtual_stages)
            refusal = schedule.refusal(plan)
            if refusal:
                rows.append(ScheduleFigures(name, virtual_stages, note=refusal))
            else:
                rows.append(_row(setting, name, virtual_stages))

    def place(row: ScheduleFigures) -> tuple[bool, float, float]:
        time = float(f"{row.iteration_time:.9g}")  # equal but for rounding errors: equal
        return row.refused, time, max(row.in_flight, default=0.0)

    return sorted(rows, key=place)


def axis_end(rows: list[ScheduleFigures]) -> float | None:
    """Return where a picture of all schedules ends, seconds: twice the fastest of them.

    A schedule that takes longer is cut off there, unless all fit.
    """
    times = [row.iteration_time for row in rows if not row.refused]
    return max((time for time in times if time <= LONGEST * min(times)), default=None)


def _row(setting: PipelineSetting, name: str, virtual_stages: int) -> ScheduleFigures:
    experiment = setting.experiment(name, virtual_stages)
    prediction = predict(experiment, resolve(experiment))
    in_flight = [rank.peak_inflight_microbatches / virtual_stages for rank in prediction.ranks]
    plan = Plan(setting.stages, setting.microbatches, virtual_stages)
    asynchronous = is_asynchronous(SCHEDULES[name], plan)
    versions_behind = _versions_behind(setting, name, virtual_stages) if asynchronous else 0
    several = setting.experiment(name, virtual_stages, horizon=HORIZON)
    steps = predict(several, resolve(several)).metrics.steps
    assert steps is not None
    assert steps.steady_s is not None
    notes = ["async"] if asynchronous else []
    if setting.memory_limit is not None and max(in_flight) > setting.memory_limit:
        notes.append(f"over {setting.memory_limit:g}")
    return ScheduleFigures(
        name,
        virtual_stages,
        prediction.timeline,
        prediction.iteration_time_s,
        steps.steady_s,
        prediction.bubble_fraction,
        tuple(in_flight),
        sum(instruction.task.op is Op.SEND for instruction in prediction.program),
        versions_behind,
        asynchronous,
        ", ".join(notes),
    )


def _versions_behind(setting: PipelineSetting, name: str, virtual_stages: int) -> int:
    """Return the most of any stage of a model in equal stages (`unit` has no weights)."""
    model = {"model": "mlp", "layers": setting.stages * virtual_stages, "hidden": 1, "sequence": 1}
    program = lower(setting.experiment(name, virtual_stages, model))
    stages = staleness_of(program, list(range(setting.stages)))
    return max(stage.max_versions_behind for stage in stages)


def to_json(setting: PipelineSetting, rows: list[ScheduleFigures]) -> dict[str, Any]:
    """Return the object of ``twinline schedules --json``; figures of refused ones are null."""
    listed = []
    for row in rows:
        figures = {
            "iteration_time_s": row.iteration_time,
            "steady_step_time_s": row.steady_step_time,
            "bubble_fraction": row.bubble_fraction,
            "peak_inflight_microbatches": list(row.in_flight),
            "messages": row.messages,
            "versions_behind": row.versions_behind,
            "asynchronous": row.asynchronous,
        }
        listed.append(
            {"schedule": row.schedule, "virtual_stages": row.virtual_stages}
            | (dict.fromkeys(figures) if row.refused else figures)
            | {"refused": row.refused, "note": row.note or None}
        )
    return setting._asdict() | {"schedules": listed}


__all__ = [
    "PipelineSetting",
    "ScheduleFigures",
    "compare_schedules",
    "parse_costs",
    "to_json",
]
